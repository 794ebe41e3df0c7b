"""One self-contained HTML page: text, tables and pictures, no network needed."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

import matplotlib as mpl
import numpy as np
from jaxtyping import UInt8
from jinja2 import Environment
from matplotlib.figure import Figure
from PIL import Image

from medsegdiff.evaluation.evaluation import Evaluation
from medsegdiff.evaluation.scores import Mean, Measure
from medsegdiff.io.atomic import write_text
from medsegdiff.metrics.base import better

QUALITY = 88
"""Of JPEG: contours stay sharp."""


@dataclass(frozen=True)
class Picture:
    """A picture in the page."""

    source: str
    """A data URI."""
    alt: str
    """What it shows, for who can't see it."""
    caption: str = ""

    @classmethod
    def of(cls, shown: Figure | UInt8[np.ndarray, "h w 3"], alt: str, caption: str = "") -> Picture:
        """Pack a plot as SVG, sharp at any size, or pixels as JPEG; the same plot gives the same bytes."""
        content = io.BytesIO()
        if isinstance(shown, Figure):
            with mpl.rc_context({"svg.hashsalt": "medsegdiff", "svg.fonttype": "path"}):
                shown.savefig(content, format="svg", dpi=160, metadata={"Date": None})
            return cls(_data_uri(content.getvalue(), "image/svg+xml"), alt, caption)
        Image.fromarray(shown).save(content, "JPEG", quality=QUALITY, subsampling=0)
        return cls(_data_uri(content.getvalue(), "image/jpeg"), alt, caption)


@dataclass(frozen=True)
class Card:
    """A case in a gallery: pictures side by side."""

    title: str
    pictures: Sequence[Picture]
    note: str = ""
    """Said beside the title: its scores."""


@dataclass(frozen=True)
class Cell:
    """A place in a table, or the head of a column."""

    text: str
    hint: str = ""
    """Shown when pointed at."""
    below: str = ""
    """A second line, in small type."""


@dataclass(frozen=True)
class Table:
    """A table whose first column is words."""

    heads: Sequence[Cell]
    rows: Sequence[Sequence[Cell]]
    sortable: bool = False
    """Whether a click on a head sorts the rows."""


@dataclass(frozen=True)
class Section:
    """A heading, some words, and what is shown under them, in this order."""

    title: str
    text: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What is counted → how many."""
    tables: Sequence[Table] = ()
    picture: Path | None = None
    """A PNG, taken into the page."""
    figures: Sequence[Picture] = ()
    """Plots, next to each other where there is room."""
    swatches: Mapping[str, str] = field(default_factory=dict)
    """What is drawn in the gallery → its colour, as CSS writes it."""
    cards: Mapping[str, Sequence[Card]] = field(default_factory=dict)
    """A gallery by heading."""
    terms: Mapping[str, str] = field(default_factory=dict)
    """Words → what they mean."""
    notes: Sequence[str] = ()
    """Sentences, a point each."""
    code: str = ""
    """Commands to copy."""
    folded: Sequence[Section] = ()
    """Shown after a click on their titles."""


def write_report(path: Path, title: str, sections: Sequence[Section], *, warnings: Sequence[str] = ()) -> None:
    """Write a page."""
    write_text(path, render(title, sections, warnings=warnings))


def render(title: str, sections: Sequence[Section], *, warnings: Sequence[str] = ()) -> str:
    """Put a page together."""
    template = resources.files("medsegdiff.report").joinpath("report.html").read_text(encoding="utf-8")
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template)
    return page.render(title=title, sections=sections, warnings=warnings, embed=_embed)


def _embed(picture: Path) -> str:
    return _data_uri(picture.read_bytes(), "image/png")


def _data_uri(content: bytes, kind: str) -> str:
    """Turn the content of a file into an address that carries it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


LABELS = {
    "dice": "Dice",
    "iou": "IoU",
    "hd95": "HD95",
    "assd": "ASSD",
    "nsd": "NSD",
    "ged": "GED²",
    "hm_iou": "HM-IoU",
    "d_max": "D_max",
    "ece": "ECE",
    "ece_near": "ECE near the masks",
    "nll_near": "log score near the masks",
    "size_crps": "CRPS of sizes",
    "size_covered": "sizes inside of their intervals",
    "size_width": "width of the intervals",
    "brier": "Brier",
    "lesion_f1": "lesion F1",
    "lesion_dice": "lesion-wise Dice",
    "pq": "PQ",
    "sq": "SQ",
    "rq": "RQ",
    "aurc": "AURC",
    "excess_aurc": "excess AURC",
    "rater_dice": "Dice of each member with each rater",
}
"""Metrics whose names are written in another way; of others the underscores go."""
PERCENT = frozenset({"volume_error"})
NATS = frozenset({"nll_near"})
SIZE = frozenset({"size_crps", "size_width"})
LENGTH = frozenset({"hd95", "assd"})
NOTHING = "–"
"""Where there is no number."""


def label(of: Measure, *, unit: str = "", arrow: bool = True) -> str:
    """Name a measure, with its unit and the direction in which it gets better."""
    words = LABELS.get(of.metric, of.metric.replace("_", " ")) + (f" with {of.rater}" if of.rater else "")
    words += f" {of.structure}" if of.structure else ""
    units = _unit(of.metric, unit)
    better_side = {"higher": " ↑", "lower": " ↓"}.get(better(of.metric), "") if arrow else ""
    return words + (f" ({units})" if units else "") + better_side


def _unit(metric: str, unit: str) -> str:
    """Tell the unit of a metric, given that of lengths."""
    known = (("%", PERCENT), ("nats", NATS), (unit, LENGTH), ("mL" if unit == "mm" else unit, SIZE))
    return next((name for name, metrics in known if metric in metrics), "")


def number(value: float, metric: str) -> str:
    """Write a score with as many digits as its size is worth."""
    if not np.isfinite(value):
        return NOTHING
    digits = 2 if metric in PERCENT | LENGTH else 5 if metric in ("aurc", "excess_aurc", "brier") else 4
    return f"{value:.{digits}f}"


def summary_table(evaluation: Evaluation) -> Table:
    """Lay out the means: a row per metric, a column per structure where there are several."""
    structures, meant = columns_of(evaluation), evaluation.conventions
    heads = [Cell("metric"), Cell("mean"), *map(Cell, structures[1:])]
    rows = []
    for of in (measure for measure in evaluation.summary if not measure.structure):
        name = Cell(label(of, unit=evaluation.setup.unit), hint=meant.get(of.metric, ""))
        means = [evaluation.summary.get(Measure(of.metric, structure, of.rater)) for structure in structures]
        rows.append([name, *(mean_cell(mean, of.metric) for mean in means)])
    return Table(heads, rows)


def columns_of(evaluation: Evaluation) -> list[str]:
    """List the structures that have numbers of their own, and before them what stands for all: nothing."""
    structures = evaluation.setup.structures
    return ["", *(structures if len(structures) > 1 else ())]


def mean_cell(of: Mean | None, metric: str) -> Cell:
    """Write a mean, and its interval below."""
    if of is None:
        return Cell(NOTHING)
    between = "" if of.ci95 is None else " … ".join(number(end, metric) for end in of.ci95)
    return Cell(number(of.mean, metric), below=between)


def case_table(evaluation: Evaluation) -> Table:
    """Lay out every case, to be sorted."""
    scores = evaluation.scores
    measures = [measure for measure in evaluation.summary if not measure.structure]
    measures += [Measure("dice", structure) for structure in columns_of(evaluation)[1:]]
    grouped = any(scores.groups.values())
    heads = [Cell("case"), *([Cell("group")] if grouped else [])]
    heads += [Cell(label(of, unit=evaluation.setup.unit, arrow=False)) for of in measures]
    rows = []
    for name, group in scores.groups.items():
        numbers = scores.of(name)
        words = [name, *([group or NOTHING] if grouped else [])]
        rows.append([*map(Cell, words), *(Cell(number(numbers.get(of, np.nan), of.metric)) for of in measures)])
    return Table(heads, rows, sortable=True)
