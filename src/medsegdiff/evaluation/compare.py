"""Comparing the scores of runs case by case: which differences are real."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from medsegdiff.errors import ConfigError, DataError, nearest, some
from medsegdiff.evaluation.results import METRICS_FILE, Setup, read_results
from medsegdiff.evaluation.scores import Measure, Scores
from medsegdiff.io.atomic import write_json
from medsegdiff.metrics.base import better
from medsegdiff.metrics.paired import bootstrap_interval, holm, signed_rank
from medsegdiff.pictures.curves import Gain, differences, save

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
class Run:
    """The scores of a run."""

    name: str
    scores: Scores
    setup: Setup = field(default_factory=Setup)

    @property
    def structures(self) -> tuple[str, ...]:
        """What was scored; files of an earlier form tell it by their numbers, where there are several."""
        found = sorted({of.structure for of in self.scores.columns if of.structure})
        return tuple(sorted(self.setup.structures) or found)


@dataclass(frozen=True)
class Difference:
    """How far a run is from another in one metric."""

    metric: str
    """As people write it: ``dice``, ``dice/cup``."""
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
        panels: dict[str, dict[str, Gain]] = {}
        for row in self.differences:
            panels.setdefault(row.metric, {})[row.run] = Gain(row.values, row.mean, row.ci95, row.real)
        save(differences(panels, against=self.runs[0]), out / "differences.png")


def compare(runs: Sequence[Run], *, metrics: Sequence[str] = ()) -> Comparison:
    """Compare runs with the first of them, by metrics as people write them, or by all that are over structures."""
    if len(runs) < 2 or len({run.name for run in runs}) < len(runs):
        names = some([run.name for run in runs]) or "none"
        raise ConfigError(f"Runs are {names}; expected two or more of different names. Name them: NAME=FOLDER.")
    first, *others = runs
    for other in others:
        _check_cases(first, other)
        _check_setup(first, other)
    measures = _chosen(runs, metrics)
    rows = [_compared(measure, first, others) for measure in measures]
    remarks = (*_of_counts(runs), *_of_choice(runs), *_of_gaps(runs, measures))
    groups = {first.scores.cluster(name) for name in first.scores.groups}
    return Comparison(
        tuple(run.name for run in runs), len(first.scores), len(groups), tuple(itertools.chain(*rows)), remarks
    )


def _chosen(runs: Sequence[Run], metrics: Sequence[str]) -> list[Measure]:
    """Choose among what every run has numbers of: what was asked for, or all that is over structures."""
    found = [dict.fromkeys(of for of, column in run.scores.columns.items() if len(column)) for run in runs]
    known = {str(of): of for of in found[0] if all(of in others for others in found)}
    if strange := [metric for metric in metrics if metric not in known]:
        close = nearest(strange[0], known)
        raise ConfigError(f"{some(strange)}: not a metric of all runs. There are {some(list(known), most=20)}.{close}")
    chosen = [known[metric] for metric in metrics]
    chosen = chosen or [of for of in known.values() if not of.structure and not of.rater]
    if not chosen:
        raise DataError(f"The runs {some([run.name for run in runs])} have no metric in common.")
    return chosen


def _check_cases(first: Run, other: Run) -> None:
    """Refuse runs of different cases."""
    for one, two in ((first, other), (other, first)):
        if alone := sorted(set(one.scores.groups) - set(two.scores.groups)):
            raise DataError(
                f"{len(alone)} of {len(one.scores)} cases are in '{one.name}' but not in '{two.name}': {some(alone)}. "
                "Evaluate both on the same cases."
            )
    if moved := sorted(name for name, group in first.scores.groups.items() if other.scores.groups[name] != group):
        raise DataError(f"'{first.name}' and '{other.name}' have different groups for {some(moved)}.")


def _check_setup(first: Run, other: Run) -> None:
    """Refuse scores that mean different things, as far as is known."""
    _check_alike(first, other, "structures", [run.structures for run in (first, other)])
    for key, words in (
        ("tolerance", "tolerances of nsd"),
        ("raters", "numbers of raters"),
        ("reference_of_several", "references made of several raters (evaluate --reference)"),
        ("lesions", "rules for lesions"),
    ):
        _check_alike(first, other, words, [getattr(run.setup, key) for run in (first, other)])


def _check_alike(first: Run, other: Run, words: str, values: Sequence[Any]) -> None:
    one, two = values
    if one not in (None, (), "") and two not in (None, (), "") and one != two:
        raise DataError(
            f"'{first.name}' and '{other.name}' were scored with different {words}: {_words(one)} and "
            f"{_words(two)}. Evaluate both against the same references, with the same options."
        )


def _words(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _of_counts(runs: Sequence[Run]) -> tuple[str, ...]:
    counts = {run.name: run.setup.members for run in runs}
    if len({count for count in counts.values() if count is not None}) < 2:
        return ()
    told = ", ".join(f"{name} {count or 'none'}" for name, count in counts.items())
    return (f"Numbers of members differ ({told}): hm_iou and d_max rise with them, and ged and size_crps fall.",)


def _of_choice(runs: Sequence[Run]) -> tuple[str, ...]:
    if len({run.setup.chosen_of for run in runs if run.setup.members}) < 2:
        return ()
    told = ", ".join(f"{run.name}: {run.setup.members_are or 'drawn'}" for run in runs if run.setup.members)
    return (f"Members were not chosen alike ({told}): chosen ones have a lower ged than as many independent draws.",)


def _of_gaps(runs: Sequence[Run], measures: Sequence[Measure]) -> tuple[str, ...]:
    """Say which cases are left out, where a number of some is not there."""
    total = len(runs[0].scores)
    known = {of: len(set.intersection(*(set(run.scores.columns[of]) for run in runs))) for of in measures}
    told = [f"{of} {total - count} of {total}" for of, count in known.items() if count < total]
    return (f"Cases without a number in one of the runs are left out: {some(told)}.",) if told else ()


def _compared(measure: Measure, first: Run, others: Sequence[Run]) -> list[Difference]:
    """Compare runs with the first in one measure; metrics are not corrected for each other."""
    values = [paired(measure, other, first) for other in others]
    p = [signed_rank(of) for of in values]
    return [
        Difference(
            metric=str(measure),
            run=other.name,
            against=first.name,
            mean=float(of.mean()),
            ci95=bootstrap_interval(of),
            p=alone,
            p_holm=adjusted,
            better=better(measure.metric),
            values=tuple(of.tolist()),
        )
        for other, of, alone, adjusted in zip(others, values, p, holm(p), strict=True)
    ]


def paired(measure: Measure, run: Run, against: Run) -> Float[np.ndarray, " n"]:
    """Subtract scores case by case, and average the cases of each group."""
    one, two = (of.scores.columns[measure] for of in (run, against))
    both = {name: one[name] - two[name] for name in sorted(run.scores.groups) if name in one and name in two}
    if not both:
        raise DataError(f"'{run.name}' and '{against.name}' have no case in which both have a {measure}.")
    return np.round(Scores(run.scores.groups, {measure: both}).by_group(measure), DIGITS)


def read_run(folder: Path, name: str = "") -> Run:
    """Read the scores of a run."""
    found = read_results(folder)
    if not len(found.scores):
        raise DataError(f"{folder / METRICS_FILE}: holds no case.")
    return Run(name or str(folder), found.scores, found.setup)
