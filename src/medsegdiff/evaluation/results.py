"""What is kept of an evaluation: scores, their means, what was scored and how; and the files that hold them."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from medsegdiff.errors import ConfigError, DataError, nearest, some
from medsegdiff.evaluation.consensus import Consensus
from medsegdiff.evaluation.scores import Mean, Measure, Score, Scores
from medsegdiff.io.atomic import write_json, write_text

METRICS_FILE = "metrics.json"
"""Written by ``medsegdiff evaluate --out``, with ``metrics.csv`` beside it."""
WORDS = ("name", "group")
"""Keys of a case that are no scores."""


@dataclass(frozen=True)
class Setup:
    """What was scored, and how. What a file of an earlier form does not tell is ``None``, or empty."""

    predictions: str = ""
    references: str = ""
    structures: tuple[str, ...] = ()
    members: int | None = None
    """The most of any case; 0 where none were saved."""
    members_least: int | None = None
    chosen_of: int | None = None
    """Candidates among which the members were chosen, so that they stand for all; ``None``: they were drawn."""
    fused_by: str = ""
    """How the members were fused here; empty where the masks were."""
    raters: tuple[int, int] | None = None
    """The fewest and the most of a case."""
    groups: int = 0
    tolerance: float | None = None
    """Of NSD, in ``unit``."""
    unit: str = ""
    """``mm`` or ``px``."""
    probability_is: str = ""
    """Where the foreground's probability comes from, in words."""
    reference: Consensus = "majority"
    """What several raters were taken for; earlier files knew their majority alone."""
    lesions: dict[str, Any] | None = None
    """The rule by which lesions were counted; ``None``: they were not."""

    @property
    def members_are(self) -> str:
        """How the members were chosen, in words; empty where they were drawn one as the other."""
        if not self.chosen_of or not self.members:
            return ""
        least, most = self.members_least or self.members, self.members
        count = str(most) if least == most else f"{least} – {most}"
        return f"{count} members chosen of {self.chosen_of} candidates"

    @property
    def reference_of_several(self) -> str:
        """What several raters were taken for; empty where every case has one, and it makes no difference."""
        return "" if self.raters is not None and max(self.raters) < 2 else self.reference


@dataclass(frozen=True)
class Results:
    """What ``metrics.json`` holds of every evaluation."""

    scores: Scores
    summary: Mapping[Measure, Mean]
    setup: Setup

    def mean(self, metric: str, structure: str = "", rater: str = "") -> Mean:
        """Look a mean up."""
        asked = Measure(metric, structure, rater)
        if asked not in self.summary:
            known = [str(measure) for measure in self.summary]
            raise ConfigError(f"No '{asked}' was scored; there are {some(known, most=20)}.{nearest(str(asked), known)}")
        return self.summary[asked]

    def shown(self, metric: str, structure: str = "", *, digits: int = 4) -> str:
        """Write a mean with its interval; a dash where there is none."""
        found = self.summary.get(Measure(metric, structure))
        if found is None:
            return "–"
        interval = "" if found.ci95 is None else " [{:.{d}f}, {:.{d}f}]".format(*found.ci95, d=digits)
        return f"{found.mean:.{digits}f}{interval}"

    def to_dict(self) -> dict[str, Any]:
        """Give the content of ``metrics.json``."""
        return {
            "summary": _nested({measure: asdict(mean) for measure, mean in self.summary.items()}),
            "cases": [
                {"name": name, **({"group": group} if group else {}), **_nested(self.scores.of(name))}
                for name, group in self.scores.groups.items()
            ],
            "made": asdict(self.setup),
        }

    def save(self, out: Path) -> None:
        """Write ``metrics.json``, and ``metrics.csv`` with a row for each number."""
        write_json(out / METRICS_FILE, self.to_dict())
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(Score._fields)
        writer.writerows((*row[:-1], "" if np.isnan(row.value) else row.value) for row in self.scores)
        write_text(out / "metrics.csv", text.getvalue())


def _nested(numbers: Mapping[Measure, Any]) -> dict[str, Any]:
    """Lay metrics below structures and raters: ``{"dice": …, "structures": {"cup": {"dice": …}}, "raters": …}``."""
    found: dict[str, Any] = {}
    for of, value in numbers.items():
        place = found
        for kind, name in (("structures", of.structure), ("raters", of.rater)):
            place = place.setdefault(kind, {}).setdefault(name, {}) if name else place
        place[of.metric] = value
    return found


def _flat(told: Mapping[str, Any], structure: str = "", rater: str = "") -> Iterator[tuple[Measure, Any]]:
    """Undo `_nested`; earlier files name structures and raters in the metric: ``dice/cup``, ``dice@rater1``."""
    for key, value in told.items():
        if key == "structures":
            for name, inner in value.items():
                yield from _flat(inner, name, rater)
        elif key == "raters":
            for name, inner in value.items():
                yield from _flat(inner, structure, name)
        elif key not in WORDS:
            metric, sign, name = (*re.split("([/@])", key, maxsplit=1), "", "")[:3]
            yield Measure(metric, name if sign == "/" else structure, name if sign == "@" else rater), value


def read_results(folder: Path) -> Results:
    """Read ``metrics.json``; what is not a number is left out."""
    file = folder / METRICS_FILE
    if not file.is_file():
        found = some(sorted(path.name for path in folder.iterdir())) if folder.is_dir() else "no such folder"
        raise DataError(
            f"{folder}: expected {METRICS_FILE} of 'medsegdiff evaluate --out'; found {found or 'nothing'}."
        )
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        scores = Scores.of_cases((str(case["name"]), case.get("group", ""), _numbers(case)) for case in told["cases"])
        summary = {of: _mean(numbers) for of, numbers in _flat(told["summary"]) if numbers["mean"] is not None}
        return Results(scores, summary, _setup(told.get("made", {})))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file}: expected what 'medsegdiff evaluate --out' writes; found {error!r}.") from None


def _numbers(case: Mapping[str, Any]) -> dict[Measure, float]:
    return {of: float(value) for of, value in _flat(case) if isinstance(value, (int, float)) and np.isfinite(value)}


def _mean(numbers: Mapping[str, Any]) -> Mean:
    low, high = numbers.get("ci95") or (None, None)
    return Mean(float(numbers["mean"]), None if low is None or high is None else (float(low), float(high)))


def _setup(told: Mapping[str, Any]) -> Setup:
    known: dict[str, Any] = {of.name: told[of.name] for of in fields(Setup) if told.get(of.name) is not None}
    known |= {key: tuple(value) for key, value in known.items() if isinstance(value, list)}
    return Setup(**known)
