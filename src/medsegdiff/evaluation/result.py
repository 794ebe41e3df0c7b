"""What an evaluation gives: scores by case, their means with intervals, and sums pooled over all pixels."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medsegdiff.evaluation.matching import Pairing
from medsegdiff.evaluation.pool import Pool
from medsegdiff.fusion.curve import Curve
from medsegdiff.io.atomic import write_json, write_text
from medsegdiff.metrics.base import ENSEMBLE_METRICS, METRICS
from medsegdiff.metrics.paired import bootstrap_interval

WORDS = ("name", "group")
"""Keys of a case that are no scores."""
CONVENTIONS = {
    "case": "Each case is scored on its native grid; of several structures, a case has the mean.",
    "mean": "The mean over cases; where cases belong to groups (patients), over the means of groups.",
    "ci95": "Bootstrap over cases, or groups: 2000 resamples, percentile interval, seed 0.",
    "reference": "Several raters: the majority of them, a tie is foreground.",
    **{entry.name: entry.facts.get("definition", "") for entry in METRICS},
}
"""How the numbers are defined; written with every result."""


@dataclass(frozen=True)
class Evaluation:
    """Scores by case, and over all cases."""

    cases: list[dict[str, Any]]
    """``name``, ``group`` where there is one, each metric (mean over structures), and ``metric/structure`` where there
    are several."""
    summary: dict[str, dict[str, Any]]
    """By metric: ``mean`` and ``ci95``."""
    empty: dict[str, int]
    """How many masks were empty: ``no_reference``, ``no_prediction``, ``both``."""
    made: dict[str, Any] = field(default_factory=dict)
    """What was scored: paths, ``members``, ``raters``, ``probability``, ``groups``, ``structures``."""
    pools: Mapping[str, Pool] = field(default_factory=dict)
    """By structure: sums over the pixels of all cases; without probabilities there are none."""
    correlation: dict[str, float] = field(default_factory=dict)
    """Over cases, rank correlation of predicted disagreement with 1 − Dice."""
    doubts: tuple[str, ...] = ()
    """What looks wrong with the masks."""
    curve: Curve | None = None
    """Dice against the number of members, of saved ones."""
    pairing: Pairing | None = field(default=None, repr=False, compare=False)
    """The files, from which pictures of cases can be drawn."""

    @property
    def conventions(self) -> dict[str, str]:
        """How the numbers of this evaluation are defined."""
        used = {of.name: of.facts["definition"] for of in ENSEMBLE_METRICS if of.name in self.summary}
        told = self.made.get("probability_is")
        tolerance = self.made.get("tolerance")
        unit = self.made.get("unit", "")
        said = {} if tolerance is None else {"tolerance": f"Of nsd here: {tolerance:g} {unit}."}
        return CONVENTIONS | said | ({"probability": told} if told else {}) | used

    @property
    def pooled(self) -> Pool | None:
        """Sums over all pixels of all structures."""
        pools = list(self.pools.values())
        return sum(pools[1:], pools[0]) if pools else None

    def to_dict(self) -> dict[str, Any]:
        """Give the content of ``metrics.json``."""
        pools = {"all": self.pooled, **self.pools} if len(self.pools) > 1 else {"all": self.pooled}
        return {
            "summary": self.summary,
            "cases": self.cases,
            "empty": self.empty,
            "made": self.made,
            "pooled": {name: pool.to_dict() for name, pool in pools.items() if pool is not None},
            "correlation": self.correlation,
            "ensemble_curve": None if self.curve is None else self.curve.to_dict(),
            "doubts": list(self.doubts),
            "conventions": self.conventions,
        }

    def shown(self, metric: str, *, digits: int = 4) -> str:
        """Write a mean with its interval."""
        numbers = self.summary[metric]
        interval = "" if numbers["ci95"] is None else " [{:.{d}f}, {:.{d}f}]".format(*numbers["ci95"], d=digits)
        return f"{numbers['mean']:.{digits}f}{interval}"

    def save(self, out: Path) -> None:
        """Write ``metrics.json`` and ``metrics.csv``."""
        write_json(out / "metrics.json", self.to_dict())
        text = io.StringIO()
        columns = list(dict.fromkeys(key for case in self.cases for key in case))
        writer = csv.DictWriter(text, fieldnames=columns, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(self.cases)
        write_text(out / "metrics.csv", text.getvalue())


def summarise(cases: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Average scores over cases, or over the means of groups, with 95 % bootstrap intervals."""
    keys = dict.fromkeys(key for case in cases for key in case if key not in WORDS)
    columns = {key: group_means(cases, key) for key in keys}
    return {
        key: {"mean": float(np.mean(column)) if column else float("nan"), "ci95": interval(column)}
        for key, column in columns.items()
    }


def group_means(cases: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    """Average the cases of each group; a case without one is its own."""
    groups: dict[tuple[str, str], list[float]] = defaultdict(list)
    for case in cases:
        if key in case and not np.isnan(case[key]):
            group = case.get("group", "")
            groups["group" if group else "case", group or case["name"]].append(float(case[key]))
    return [float(np.mean(values)) for values in groups.values()]


def interval(values: Sequence[float]) -> list[float] | None:
    """Estimate the 95 % interval of a mean by the bootstrap: 2000 resamples, percentiles, seed 0."""
    found = bootstrap_interval(np.asarray(values, dtype=np.float64))
    return None if found is None else list(found)
