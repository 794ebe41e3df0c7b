"""The worklist of a segmentation: which masks a human must see, why, and what they look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from medsegdiff.inference.folder import PAGE, WORKLIST
from medsegdiff.inference.quality import Quality, worst_first
from medsegdiff.inference.record import ImageRecord
from medsegdiff.inference.sizes import Size
from medsegdiff.report.html import Card, Cell, Picture, Section, Table, write_report

SHOWN = 40
"""Images that are shown, the worst first; the table lists all."""
SIDE = 640
"""Of a picture in the page, in pixels."""
NUMBERS = (
    "Dice is predicted from scores that need no reference, as calibration cases taught; in one case of ten it is below "
    "the bound."
)
RANKS = "There were too few patients to predict Dice: cases are ranked by the score that ranked those best."


def write_worklist(out: Path, images: Sequence[ImageRecord]) -> Path:
    """Write ``quality.html`` into a folder of results.

    Args:
        out: Folder that was written, with overlays where there are some.
        images: What is told of them.

    Returns:
        The page.
    """
    rows = worst_first([image.name for image in images], [image.quality for image in images])
    by_name = {image.name: image for image in images}
    marked = list(dict.fromkeys(name for name, _, quality in rows if quality.review))
    others = [name for name in dict.fromkeys(name for name, *_ in rows) if name not in set(marked)]
    predicted = any(quality.predicted_dice is not None for *_, quality in rows)
    facts = {"images": str(len(images)), "to be seen": str(len(marked)), "accepted": str(len(others))}
    sections = [
        Section(
            "Which masks must a human see?",
            f"The worst first. {NUMBERS if predicted else RANKS} This is research software, and no medical device.",
            facts=facts,
        ),
        _gallery("To be seen", out, marked, by_name),
        Section("All masks", f"The same is in {WORKLIST}.", tables=[_table(rows, by_name)]),
        _gallery("Accepted: those of which least is expected", out, others, by_name),
    ]
    write_report(out / PAGE, f"Worklist of {out.name}", [section for section in sections if section is not None])
    return out / PAGE


def _gallery(title: str, out: Path, names: Sequence[str], images: Mapping[str, ImageRecord]) -> Section | None:
    """Show the overlays of some images, with what is said of their masks."""
    cards = [_card(out, images[name]) for name in names[:SHOWN]]
    if not cards:
        return None
    more = f"{SHOWN} of {len(names)} are shown." if len(names) > SHOWN else ""
    return Section(title, more, cards={"": cards})


def _card(out: Path, image: ImageRecord) -> Card:
    overlay = out / "overlay" / f"{image.name}.png"
    pictures = [Picture.of(_shrunk(overlay), f"{image.name}: contours and uncertainty")] if overlay.is_file() else []
    several = len(image.quality) > 1
    said = [(f"{name}: " if several else "") + _said(of) for name, of in image.quality.items()]
    return Card(image.name, pictures, " · ".join(said))


def _said(quality: Quality) -> str:
    """Say what is known of a mask in a line."""
    numbers = f"score {quality.score:.3f}"
    if quality.predicted_dice is not None:
        numbers = f"Dice about {quality.predicted_dice:.2f}, at least {quality.dice_at_least or 0:.2f}"
    return "; ".join([numbers, *quality.reasons])


def _shrunk(picture: Path) -> np.ndarray:
    with Image.open(picture) as opened:
        shown = opened.convert("RGB")
        shown.thumbnail((SIDE, SIDE))
        return np.asarray(shown)


def _table(rows: Sequence[tuple[str, str, Quality]], images: Mapping[str, ImageRecord]) -> Table:
    heads = ("case", "structure", "look?", "predicted Dice", "at least", "score", "size", "why")
    return Table(
        [Cell(head) for head in heads],
        [[Cell(text) for text in _row(name, structure, of, images[name])] for name, structure, of in rows],
        sortable=True,
    )


def _row(name: str, structure: str, quality: Quality, image: ImageRecord) -> list[str]:
    return [
        name,
        structure,
        "yes" if quality.review else "",
        _number(quality.predicted_dice),
        _number(quality.dice_at_least),
        _number(quality.score),
        _size(image.sizes.get(structure)),
        "; ".join(quality.reasons),
    ]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _size(size: Size | None) -> str:
    return "–" if size is None else f"{size.mean:.4g} ({size.low:.4g} … {size.high:.4g}) {size.unit}"
