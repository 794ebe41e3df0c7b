"""From the trials of a data set to means, intervals and paired differences: seeds are averaged within each case."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from earn_results import Columns, Outcome

from medsegdiff.evaluation.compare import Difference, Run, compare
from medsegdiff.evaluation.scores import Measure, Scores
from medsegdiff.metrics.failures import aurc_of_cases
from medsegdiff.metrics.paired import bootstrap_interval, holm

RESAMPLES = 500
"""Of areas under risk, whose bootstrap computes each anew."""


@dataclass(frozen=True)
class Averaged:
    """A row of the tables: a way to segment, its trials averaged."""

    title: str
    seeds: tuple[int, ...]
    scores: Scores
    trials: tuple[Columns, ...]
    """By seed."""
    seconds: float = 0
    gflop: float = 0
    steps: float = 0
    members: str = ""

    @property
    def run(self) -> Run:
        """Give it as what `compare` takes."""
        return Run(self.title, self.scores)

    def values(self, metric: str) -> np.ndarray:
        """Give a number by case, or by the groups that cases are averaged in; nothing where it was not measured."""
        known = Measure(metric) in self.scores.columns
        return np.array(self.scores.by_group(Measure(metric)) if known else [])

    def mean(self, metric: str) -> float:
        """Average over cases, or over groups."""
        values = self.values(metric)
        return float(values.mean()) if len(values) else float("nan")

    def shown(self, metric: str, *, scale: float = 1, digits: int = 3) -> str:
        """Write a mean with its 95 % interval; a dash where it was not measured."""
        values = scale * self.values(metric)
        return "–" if not len(values) else with_interval(values.mean(), bootstrap_interval(values), digits)

    def aurc(self) -> str:
        """Write the area under risk against coverage over cases, the mean over seeds, with its 95 % interval."""
        trials = [(columns["doubt"], columns["dice"]) for columns in self.trials]
        names = list(self.scores.groups)

        def area(chosen: Sequence[str]) -> float:
            of_seeds = [
                aurc_of_cases(np.array([doubt[name] for name in chosen]), 1 - np.array([dice[name] for name in chosen]))
                for doubt, dice in trials
            ]
            return float(np.mean(of_seeds))

        if any(np.isnan(list(doubt.values())).any() for doubt, _ in trials):
            return "–"
        drawn = [area(names_of) for names_of in resampled(names, self.scores)]
        low, high = np.quantile(drawn, [0.025, 0.975])
        return with_interval(area(names), (float(low), float(high)), 4)


def with_interval(mean: float, interval: tuple[float, float] | None, digits: int) -> str:
    """Write a mean with its interval."""
    told = "" if interval is None else " [{:.{d}f}, {:.{d}f}]".format(*interval, d=digits)
    return f"{mean:.{digits}f}{told}"


def resampled(names: Sequence[str], scores: Scores) -> list[list[str]]:
    """Draw the cases anew, whole groups at a time."""
    clusters: dict[tuple[str, str], list[str]] = {}
    for name in names:
        clusters.setdefault(scores.cluster(name), []).append(name)
    of, rng = list(clusters.values()), np.random.default_rng(0)
    draws = rng.integers(len(of), size=(RESAMPLES, len(of)))
    return [[name for index in draw for name in of[index]] for draw in draws]


def common_cases(outcomes: Sequence[Outcome]) -> list[str]:
    """List the cases that all trials have segmented."""
    first, *others = outcomes
    return [case for case in first.groups if all(case in other.groups for other in others)]


def averaged(
    row: str, title: str, outcomes: Sequence[Outcome], cases: Sequence[str], displaced: Sequence[str] = ()
) -> Averaged:
    """Average the trials of a row; references of ``displaced`` patients lie elsewhere."""
    trials = [columns_of(outcome.rows[row].columns, outcome.sizes, cases) for outcome in outcomes]
    if displaced:
        groups = outcomes[0].groups
        for of in trials:
            of["placed"] = {case: math.nan if groups[case] in displaced else of["dice"][case] for case in cases}
    rows = [outcome.rows[row] for outcome in outcomes]
    return Averaged(
        title=title,
        seeds=tuple(outcome.key.seed for outcome in outcomes),
        scores=mean_scores(trials, outcomes[0].groups, cases),
        trials=tuple(trials),
        seconds=_mean([of.seconds for of in rows]),
        gflop=_mean([of.gflop for of in rows]),
        steps=_mean([outcome.steps for outcome in outcomes]),
        members=" of ".join(map(str, dict.fromkeys((rows[0].members, rows[0].drawn)))),
    )


def columns_of(columns: Columns, sizes: Columns, cases: Sequence[str]) -> Columns:
    """Keep some cases, and add the Dice of small structures."""
    kept = {name: {case: of[case] for case in cases} for name, of in columns.items()}
    return kept | {"small": small_dice(kept, sizes, cases)}


def small_dice(columns: Columns, sizes: Columns, cases: Sequence[str]) -> dict[str, float]:
    """Average Dice over the structures of a case that are among the smallest third of all that are there."""
    names = {name: columns.get(f"dice/{name}", columns["dice"]) for name in sizes}
    there = [sizes[name][case] for name in names for case in cases if sizes[name][case] > 0]
    limit = np.quantile(there, 1 / 3) if there else 0

    def of_case(case: str) -> float:
        return _mean([dice[case] for name, dice in names.items() if 0 < sizes[name][case] <= limit])

    return {case: of_case(case) for case in cases}


def mean_scores(trials: Sequence[Columns], groups: Mapping[str, str], cases: Sequence[str]) -> Scores:
    """Average numbers over seeds, case by case."""
    shared = [name for name in trials[0] if all(name in of for of in trials)]
    columns = {Measure(name): {case: _mean([of[name][case] for of in trials]) for case in cases} for name in shared}
    known = {
        measure: {case: value for case, value in of.items() if not np.isnan(value)} for measure, of in columns.items()
    }
    return Scores({case: groups[case] for case in cases}, {measure: of for measure, of in known.items() if of})


def differences(pairs: Sequence[tuple[Averaged, Averaged]], metric: str) -> list[Difference]:
    """Subtract the second of each pair from the first, case by case; p is corrected for the number of pairs."""
    able = [(of, against) for of, against in pairs if len(of.values(metric)) and len(against.values(metric))]
    found = [compare([against.run, of.run], metrics=[metric]).differences[0] for of, against in able]
    adjusted = holm([difference.p for difference in found])
    return [replace(difference, p_holm=p) for difference, p in zip(found, adjusted, strict=True)]


def of_rule(rule: str, outcomes: Sequence[Outcome], cases: Sequence[str]) -> Averaged:
    """Average a rule of deciding over trials."""
    trials = [{name: {case: of[case] for case in cases} for name, of in o.rules[rule].items()} for o in outcomes]
    seeds = tuple(outcome.key.seed for outcome in outcomes)
    return Averaged(rule, seeds, mean_scores(trials, outcomes[0].groups, cases), tuple(trials))


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if not np.isnan(value)]
    return float(np.mean(finite)) if finite else float("nan")
