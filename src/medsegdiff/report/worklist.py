"""The worklist of a segmentation: which masks a human must see, why, and what they look like."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from medsegdiff.inference.folder import PAGE, WORKLIST
from medsegdiff.report.html import Card, Cell, Picture, Section, Table, write_report

SHOWN = 40
"""Images that are shown, the worst first."""
LISTED = 2000
"""Masks in the table."""
SIDE = 640
"""Of a picture in the page, in pixels."""
NUMBERS = (
    "Dice is predicted from scores that need no reference, as calibration cases taught; in one case of ten it is below "
    "the bound."
)
RANKS = "There were too few patients to predict Dice: cases are only ranked."
TRUST = (
    "Masks are sorted by trust: the share of calibration cases that would seem as doubtful, by score and by what the "
    "image looks like."
)
WARNING = "This is research software, and no medical device."


Row = Mapping[str, str]
"""Of ``quality.csv``."""


def write_worklist(out: Path) -> Path:
    """Write ``quality.html`` into a folder of results.

    Args:
        out: Folder with ``quality.csv``, and overlays where there are some.

    Returns:
        The page.
    """
    first, marked, others, predicted = list[Row](), dict[str, None](), dict[str, None](), False
    with (out / WORKLIST).open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):  # the worst first: those to be seen are before the others
            first += [row] if len(first) < LISTED else []
            (marked if row["flag"] else others).setdefault(row["name"])
            predicted |= bool(row["predicted_dice"])
    accepted = [name for name in others if name not in marked]
    facts = {
        "images": str(len(marked) + len(accepted)),
        "to be seen": str(len(marked)),
        "accepted": str(len(accepted)),
    }
    cut = f" The first {LISTED} are here." if len(first) == LISTED else ""
    sections = [
        Section(
            "Which masks must a human see?",
            f"The worst first. {NUMBERS if predicted else RANKS} {TRUST} {WARNING}",
            facts=facts,
        ),
        _gallery("To be seen", out, list(marked), first),
        Section("All masks", f"The same is in {WORKLIST}.{cut}", tables=[_table(first)]),
        _gallery("Accepted: those of which least is expected", out, accepted, first),
    ]
    write_report(out / PAGE, f"Worklist of {out.name}", [section for section in sections if section is not None])
    return out / PAGE


def _gallery(title: str, out: Path, names: Sequence[str], rows: Sequence[Row]) -> Section | None:
    """Show the overlays of some images, with what is said of their masks."""
    by_name: dict[str, list[Row]] = {name: [] for name in names[:SHOWN]}
    for row in rows:
        if row["name"] in by_name:
            by_name[row["name"]].append(row)
    cards = [_card(out, name, of) for name, of in by_name.items() if of]
    if not cards:
        return None
    more = f"{len(cards)} of {len(names)} are shown." if len(names) > len(cards) else ""
    return Section(title, more, cards={"": cards})


def _card(out: Path, name: str, rows: Sequence[Row]) -> Card:
    overlay = out / "overlay" / f"{name}.png"
    pictures = [Picture.of(_shrunk(overlay), f"{name}: contours and uncertainty")] if overlay.is_file() else []
    said = [(f"{row['structure']}: " if len(rows) > 1 else "") + _said(row) for row in rows]
    return Card(name, pictures, " · ".join(said))


def _said(row: Row) -> str:
    """Say what is known of a mask in a line."""
    numbers = f"score {_number(row['score'])}"
    if row["predicted_dice"]:
        numbers = f"Dice about {float(row['predicted_dice']):.2f}, at least {float(row['dice_at_least'] or 0):.2f}"
    return "; ".join(filter(None, [numbers, row["reasons"]]))


def _shrunk(picture: Path) -> np.ndarray:
    with Image.open(picture) as opened:
        shown = opened.convert("RGB")
        shown.thumbnail((SIDE, SIDE))
        return np.asarray(shown)


def _table(rows: Sequence[Row]) -> Table:
    heads = ("case", "structure", "look?", "predicted Dice", "at least", "score", "trust", "size", "why")
    return Table([Cell(head) for head in heads], [list(map(Cell, _cells(row))) for row in rows], sortable=True)


def _cells(row: Row) -> list[str]:
    return [
        row["name"],
        row["structure"],
        "yes" if row["flag"] else "",
        _number(row["predicted_dice"]),
        _number(row["dice_at_least"]),
        _number(row["score"]),
        _number(row["trust"]),
        _size(row),
        row["reasons"],
    ]


def _number(text: str) -> str:
    return f"{float(text):.3f}" if text else "–"


def _size(row: Row) -> str:
    if not row["size"]:
        return "–"
    size, low, high = (f"{float(row[name]):.4g}" for name in ("size", "low", "high"))
    return f"{size} ({low} … {high}) {row['unit']}"
