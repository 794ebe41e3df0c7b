"""Comparing the scores of runs case by case: which differences are real."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from medsegdiff.errors import ConfigError, DataError, nearest, some
from medsegdiff.io.atomic import write_json
from medsegdiff.metrics.base import better
from medsegdiff.metrics.paired import bootstrap_interval, holm, signed_rank
from medsegdiff.pictures.differences import Panel, draw_differences

SCORES = "metrics.json"
"""Written by ``medsegdiff evaluate --out``."""
WORDS = ("name", "group")
"""Keys of a case that are no scores."""
LEVEL = 0.05
"""Largest adjusted p of a difference that is called real."""
DIGITS = 12
"""Differences are rounded so: what is smaller comes from the order of sums, and would be ranked like any other."""
CONVENTIONS = {
    "difference": "The run's score minus the first run's, of each case; several cases of a group are averaged first.",
    "ci95": "Bootstrap over cases, or groups where there are any: 2000 resamples, percentile interval, seed 0.",
    "p": "Wilcoxon's signed-rank test, two-sided, zeros left out; 1 where nothing differs.",
    "p_holm": "p after Holm's correction for the runs that are compared; metrics are not corrected for each other: "
    "choose the one that counts beforehand.",
    "real": f"p_holm is below {LEVEL:g} and the interval does not hold 0; five cases or fewer can't show it, with "
    "several runs more are needed.",
}
"""How the numbers are defined; written with every result."""


@dataclass(frozen=True)
class Scores:
    """The scores of a run."""

    name: str
    cases: Mapping[str, Mapping[str, float]]
    """By case and metric; what is not a number is left out."""
    groups: Mapping[str, str]
    """Group (patient) of each case; a case without one is its own."""
    made: Mapping[str, Any] = field(default_factory=dict)
    """What was scored, as the evaluation tells."""


@dataclass(frozen=True)
class Difference:
    """How far a run is from another in one metric."""

    metric: str
    run: str
    against: str
    mean: float
    """Run minus ``against``."""
    ci95: tuple[float, float] | None
    """``None`` for fewer than two cases."""
    p: float
    p_holm: float
    better: str
    """``higher`` or ``lower``, as the metric says; empty where it is not known."""
    values: tuple[float, ...] = field(repr=False)
    """By case, or by group."""

    @property
    def real(self) -> bool:
        """Whether the difference is more than chance explains."""
        return self.p_holm < LEVEL and self.ci95 is not None and not self.ci95[0] <= 0 <= self.ci95[1]

    @property
    def verdict(self) -> str:
        """What follows, in words."""
        if not self.real:
            return "not real"
        if not self.better:
            return f"{self.run} {'higher' if self.mean > 0 else 'lower'}"
        wins = (self.mean > 0) == (self.better == "higher")
        return f"{self.run if wins else self.against} better"


@dataclass(frozen=True)
class Comparison:
    """All runs against the first."""

    runs: tuple[str, ...]
    num_cases: int
    num_groups: int
    differences: tuple[Difference, ...]
    remarks: tuple[str, ...] = ()
    """What to bear in mind."""

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain values."""
        rows = [asdict(row) | {"real": row.real, "verdict": row.verdict} for row in self.differences]
        facts = {"runs": self.runs, "cases": self.num_cases, "groups": self.num_groups}
        return {**facts, "differences": rows, "remarks": self.remarks, "conventions": CONVENTIONS}

    def save(self, out: Path) -> None:
        """Write ``comparison.json`` and the plot ``differences.png``."""
        write_json(out / "comparison.json", self.to_dict())
        panels = [Panel(metric, self._rows(metric)) for metric in dict.fromkeys(d.metric for d in self.differences)]
        draw_differences(panels, out / "differences.png", against=self.runs[0])

    def _rows(self, metric: str) -> dict[str, tuple[Sequence[float], float, tuple[float, float] | None, bool]]:
        rows = (row for row in self.differences if row.metric == metric)
        return {row.run: (row.values, row.mean, row.ci95, row.real) for row in rows}


def compare(runs: Sequence[Scores], *, metrics: Sequence[str] = ()) -> Comparison:
    """Compare runs with the first of them."""
    if len(runs) < 2 or len({run.name for run in runs}) < len(runs):
        names = some([run.name for run in runs]) or "none"
        raise ConfigError(f"Runs are {names}; expected two or more of different names. Name them: NAME=FOLDER.")
    first, *others = runs
    for other in others:
        _check_cases(first, other)
        _check_made(first, other)
    known = _common_metrics(runs)
    asked = list(metrics) or [metric for metric in known if not {"/", "@"} & {*metric}]
    if strange := [metric for metric in asked if metric not in known]:
        close = nearest(strange[0], known)
        raise ConfigError(f"{some(strange)}: not a metric of all runs. There are {some(known, most=20)}.{close}")
    if not asked:
        raise DataError(f"The runs {some([run.name for run in runs])} have no metric in common.")
    rows = [_difference(metric, other, first) for metric in asked for other in others]
    adjusted = [p for metric in asked for p in holm([row["p"] for row in rows if row["metric"] == metric])]
    differences = tuple(Difference(**row, p_holm=p) for row, p in zip(rows, adjusted, strict=True))
    return Comparison(
        tuple(run.name for run in runs), len(first.cases), len(set(first.groups.values())), differences, remarks(runs)
    )


def _check_cases(first: Scores, other: Scores) -> None:
    """Refuse runs of different cases."""
    for one, two in ((first, other), (other, first)):
        if alone := sorted(set(one.cases) - set(two.cases)):
            raise DataError(
                f"{len(alone)} of {len(one.cases)} cases are in '{one.name}' but not in '{two.name}': {some(alone)}. "
                "Evaluate both on the same cases."
            )
    if moved := sorted(name for name, group in first.groups.items() if other.groups[name] != group):
        raise DataError(f"'{first.name}' and '{other.name}' have different groups for {some(moved)}.")


def _check_made(first: Scores, other: Scores) -> None:
    """Refuse scores that mean different things."""
    for key, words in (
        ("structures", "structures"),
        ("tolerance", "tolerances of nsd"),
        ("raters", "numbers of raters"),
    ):
        one, two = (run.made.get(key) for run in (first, other))
        if one is not None and two is not None and one != two:
            raise DataError(
                f"'{first.name}' and '{other.name}' were scored with different {words}: {one} and {two}. Evaluate both "
                "against the same references, with the same options."
            )


def remarks(runs: Sequence[Scores]) -> tuple[str, ...]:
    """Say what to bear in mind with these runs."""
    counts = {run.name: run.made.get("members") for run in runs}
    if len({count for count in counts.values() if count is not None}) < 2:
        return ()
    told = ", ".join(f"{name} {count or 'none'}" for name, count in counts.items())
    return (f"Numbers of members differ ({told}): hm_iou and d_max rise with them, and ged falls.",)


def _common_metrics(runs: Sequence[Scores]) -> list[str]:
    """List the metrics for which every run has a number in some case, in their order."""
    found = [dict.fromkeys(key for case in run.cases.values() for key in case) for run in runs]
    return [metric for metric in found[0] if all(metric in of for of in found)]


def _difference(metric: str, run: Scores, against: Scores) -> dict[str, Any]:
    values = paired(metric, run, against)
    return {
        "metric": metric,
        "run": run.name,
        "against": against.name,
        "mean": float(values.mean()),
        "ci95": bootstrap_interval(values),
        "p": signed_rank(values),
        "better": better(metric.partition("/")[0].partition("@")[0]),
        "values": tuple(values.tolist()),
    }


def paired(metric: str, run: Scores, against: Scores) -> Float[np.ndarray, " n"]:
    """Subtract scores case by case, and average the cases of each group."""
    groups: dict[str, list[float]] = {}
    for name in sorted(run.cases):
        one, two = run.cases[name].get(metric), against.cases[name].get(metric)
        if one is not None and two is not None:
            groups.setdefault(run.groups[name], []).append(one - two)
    if not groups:
        raise DataError(f"'{run.name}' and '{against.name}' have no case in which both have a {metric}.")
    return np.round([np.mean(values) for values in groups.values()], DIGITS)


def read_scores(folder: Path, name: str = "") -> Scores:
    """Read the scores of a run."""
    file = folder / SCORES
    if not file.is_file():
        found = some(sorted(path.name for path in folder.iterdir())) if folder.is_dir() else "no such folder"
        raise DataError(f"{folder}: expected {SCORES} of 'medsegdiff evaluate --out'; found {found or 'nothing'}.")
    try:
        told = {str(case["name"]): case for case in json.loads(file.read_text(encoding="utf-8"))["cases"]}
        cases = {key: _numbers(case) for key, case in told.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file}: expected what 'medsegdiff evaluate --out' writes; found {error!r}.") from None
    if not cases:
        raise DataError(f"{file}: holds no case.")
    groups = {key: f"group {case['group']}" if case.get("group") else f"case {key}" for key, case in told.items()}
    made = json.loads(file.read_text(encoding="utf-8")).get("made", {})
    return Scores(name or str(folder), cases, groups, made)


def _numbers(case: Mapping[str, Any]) -> dict[str, float]:
    """Keep the scores that are finite numbers."""
    found = {key: value for key, value in case.items() if key not in WORDS and isinstance(value, (int, float))}
    return {key: float(value) for key, value in found.items() if np.isfinite(value)}
