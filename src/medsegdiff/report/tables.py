"""Scores as tables to be read: the means by metric and structure, and every case."""

from __future__ import annotations

import numpy as np

from medsegdiff.evaluation.evaluation import Evaluation
from medsegdiff.evaluation.scores import Mean, Measure
from medsegdiff.metrics.base import better
from medsegdiff.report.html import Cell, Table

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
    "brier": "Brier",
    "aurc": "AURC",
    "excess_aurc": "excess AURC",
    "rater_dice": "Dice of each member with each rater",
}
"""Metrics whose names are written in another way; of others the underscores go."""
PERCENT = frozenset({"volume_error"})
LENGTH = frozenset({"hd95", "assd"})
NOTHING = "–"
"""Where there is no number."""


def label(of: Measure, *, unit: str = "", arrow: bool = True) -> str:
    """Name a measure, with its unit and the direction in which it gets better."""
    words = LABELS.get(of.metric, of.metric.replace("_", " ")) + (f" with {of.rater}" if of.rater else "")
    words += f" {of.structure}" if of.structure else ""
    units = "%" if of.metric in PERCENT else unit if of.metric in LENGTH else ""
    better_side = {"higher": " ↑", "lower": " ↓"}.get(better(of.metric), "") if arrow else ""
    return words + (f" ({units})" if units else "") + better_side


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
        rows.append([name, *(_mean(mean, of.metric) for mean in means)])
    return Table(heads, rows)


def columns_of(evaluation: Evaluation) -> list[str]:
    """List the structures that have numbers of their own, and before them what stands for all: nothing."""
    structures = evaluation.setup.structures
    return ["", *(structures if len(structures) > 1 else ())]


def _mean(of: Mean | None, metric: str) -> Cell:
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
