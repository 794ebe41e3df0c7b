"""Scores as tables to be read: the means by metric and structure, and every case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medsegdiff.evaluation.result import Evaluation
from medsegdiff.metrics.base import better
from medsegdiff.report.html import Cell, Table

LABELS = {
    "dice": "Dice",
    "iou": "IoU",
    "hd95": "HD95",
    "hd": "HD",
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
LENGTH = frozenset({"hd", "hd95", "assd"})
NOTHING = "–"
"""Where there is no number."""


def label(metric: str, *, unit: str = "") -> str:
    """Name a metric, with its unit and the direction in which it gets better."""
    return f"{plain_label(metric, unit=unit)} {arrow(metric)}".rstrip()


def plain_label(metric: str, *, unit: str = "") -> str:
    """Name a metric, with its unit."""
    of = "%" if metric in PERCENT else unit if metric in LENGTH else ""
    words = f"Dice with {metric[5:]}" if metric.startswith("dice@") else LABELS.get(metric, metric.replace("_", " "))
    return f"{words} ({of})" if of else words


def arrow(metric: str) -> str:
    """Tell which way a metric gets better."""
    return {"higher": "↑", "lower": "↓"}.get(better(metric.partition("@")[0]), "")


def number(value: float, metric: str) -> str:
    """Write a score with as many digits as its size is worth."""
    if not np.isfinite(value):
        return NOTHING
    digits = 2 if metric in PERCENT | LENGTH else 5 if metric in ("aurc", "excess_aurc", "brier") else 4
    return f"{value:.{digits}f}"


def base_metrics(evaluation: Evaluation) -> list[str]:
    """List the metrics, each once however many structures there are."""
    return [key for key in evaluation.summary if "/" not in key]


def summary_table(evaluation: Evaluation) -> Table:
    """Lay out the means: a row per metric, a column per structure where there are several."""
    structures = columns_of(evaluation)
    heads = [Cell("metric"), Cell("mean"), *map(Cell, structures[1:])]
    unit, meant = str(evaluation.made.get("unit", "")), evaluation.conventions
    rows = []
    for metric in base_metrics(evaluation):
        keys = [metric, *(f"{metric}/{structure}" for structure in structures[1:])]
        name = Cell(label(metric, unit=unit), hint=meant.get(metric.partition("@")[0], ""))
        rows.append([name, *(_mean(evaluation.summary.get(key), metric) for key in keys)])
    return Table(heads, rows)


def columns_of(evaluation: Evaluation) -> list[str]:
    """List what a metric has values for."""
    structures = [str(name) for name in evaluation.made.get("structures", ())]
    return ["", *(structures if len(structures) > 1 else [])]


def _mean(numbers: Mapping[str, Any] | None, metric: str) -> Cell:
    if numbers is None:
        return Cell(NOTHING)
    ends = numbers["ci95"]
    between = "" if ends is None else " … ".join(number(end, metric) for end in ends)
    return Cell(number(numbers["mean"], metric), below=between)


def case_table(evaluation: Evaluation) -> Table:
    """Lay out every case, to be sorted."""
    rows = evaluation.cases
    unit = str(evaluation.made.get("unit", ""))
    metrics = base_metrics(evaluation) + [f"dice/{name}" for name in columns_of(evaluation)[1:]]
    words = ["name", *(["group"] if any("group" in row for row in rows) else [])]
    heads = [Cell("case"), *map(Cell, words[1:])]
    heads += [Cell(f"Dice {key[5:]}" if "/" in key else plain_label(key, unit=unit)) for key in metrics]
    return Table(heads, [_case(row, words, metrics) for row in rows], sortable=True)


def _case(row: Mapping[str, Any], words: Sequence[str], metrics: Sequence[str]) -> list[Cell]:
    numbers = [Cell(number(float(row.get(key, np.nan)), key.partition("/")[0])) for key in metrics]
    return [Cell(str(row.get(word, NOTHING))) for word in words] + numbers
