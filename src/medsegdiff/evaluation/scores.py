"""Scores as a table: case, group, structure, rater, metric, value; and their means."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from medsegdiff.metrics.paired import bootstrap_interval


@dataclass(frozen=True)
class Measure:
    """What a number is of."""

    metric: str
    structure: str = ""
    """Empty: the mean over structures, or the only one."""
    rater: str = ""
    """Empty: the reference."""

    def __str__(self) -> str:
        """Write it as people do: ``dice``, ``dice/cup``, ``dice@rater1``."""
        return self.metric + (f"/{self.structure}" if self.structure else "") + (f"@{self.rater}" if self.rater else "")


class Score(NamedTuple):
    """A row of ``metrics.csv``."""

    case: str
    group: str
    structure: str
    rater: str
    metric: str
    value: float


@dataclass(frozen=True)
class Mean:
    """A mean over cases, or over the means of groups."""

    mean: float
    """NaN where no case has a number."""
    ci95: tuple[float, float] | None
    """``None`` for fewer than two cases."""


@dataclass(frozen=True)
class Scores:
    """The scores of all cases."""

    groups: Mapping[str, str]
    """Every case, and its group (patient); empty where it is of none."""
    columns: Mapping[Measure, Mapping[str, float]]
    """By case; a case that lacks a number may be left out."""

    @classmethod
    def of_cases(cls, cases: Iterable[tuple[str, str, Mapping[Measure, float]]]) -> Scores:
        """Take name, group and numbers of each case."""
        groups: dict[str, str] = {}
        columns: dict[Measure, dict[str, float]] = {}
        for name, group, numbers in cases:
            groups[name] = group
            for measure, value in numbers.items():
                columns.setdefault(measure, {})[name] = value
        return cls(groups, columns)

    @classmethod
    def averaged(cls, runs: Sequence[Scores]) -> Scores:
        """Average runs within each case that all of them have; a number over those runs that have it."""
        shared = {name: group for name, group in runs[0].groups.items() if all(name in run.groups for run in runs)}
        columns: dict[Measure, dict[str, float]] = {}
        for of in dict.fromkeys(of for run in runs for of in run.columns):
            found = {name: [run.value(name, of.metric, of.structure, of.rater) for run in runs] for name in shared}
            known = {name: [value for value in values if not np.isnan(value)] for name, values in found.items()}
            columns[of] = {name: float(np.mean(values)) for name, values in known.items() if values}
        return cls(shared, columns)

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[Score]:
        for name, group in self.groups.items():
            for of, value in self.of(name).items():
                yield Score(name, group, of.structure, of.rater, of.metric, value)

    def of(self, case: str) -> dict[Measure, float]:
        """Give the numbers of a case."""
        return {measure: column[case] for measure, column in self.columns.items() if case in column}

    def value(self, case: str, metric: str, structure: str = "", rater: str = "") -> float:
        """Look a number up; NaN where there is none."""
        return self.columns.get(Measure(metric, structure, rater), {}).get(case, float("nan"))

    def column(self, metric: str, structure: str = "", rater: str = "") -> list[float]:
        """Give the numbers of all cases, in their order; NaN where there is none."""
        return [self.value(case, metric, structure, rater) for case in self.groups]

    def ranked(self, metric: str = "dice") -> list[str]:
        """Name the cases that have a number, the largest first, and equal ones by name."""
        known = {case: value for case, value in self.columns.get(Measure(metric), {}).items() if not np.isnan(value)}
        return sorted(known, key=lambda case: (-known[case], case))

    def cluster(self, case: str) -> tuple[str, str]:
        """Tell what a case is averaged in: its group, or itself, which is no group of the same name."""
        return ("group", self.groups[case]) if self.groups[case] else ("case", case)

    def by_group(self, measure: Measure) -> list[float]:
        """Average the cases of each group."""
        values: dict[tuple[str, str], list[float]] = defaultdict(list)
        for name, value in self.columns[measure].items():
            if not np.isnan(value):
                values[self.cluster(name)].append(float(value))
        return [float(np.mean(of_group)) for of_group in values.values()]

    def means(self) -> dict[Measure, Mean]:
        """Average over cases, or over the means of groups, with 95 % bootstrap intervals."""
        found = {measure: np.asarray(self.by_group(measure), dtype=np.float64) for measure in self.columns}
        return {
            measure: Mean(float(np.mean(values)) if len(values) else float("nan"), bootstrap_interval(values))
            for measure, values in found.items()
        }
