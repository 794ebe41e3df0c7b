"""Tables of scores for tests, and numbers of a case by the names that people write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medsegdiff.evaluation import Evaluation, Measure, Scores, Setup


def numbers(evaluation: Evaluation, case: str = "") -> dict[str, float]:
    """Of a case, or of the first: ``dice``, ``dice/cup``, ``dice@rater1`` → value."""
    scores = evaluation.scores
    return {str(measure): value for measure, value in scores.of(case or next(iter(scores.groups))).items()}


def table(cases: Sequence[Mapping[Any, Any]]) -> Scores:
    """Of cases with ``name``, ``group``, and numbers by metric or `Measure`."""
    words = ("name", "group")
    return Scores.of_cases(
        (
            case["name"],
            case.get("group", ""),
            {Measure(of) if isinstance(of, str) else of: value for of, value in case.items() if of not in words},
        )
        for case in cases
    )


def made(cases: Sequence[Mapping[Any, Any]], **facts: Any) -> Evaluation:
    """An evaluation of cases that nobody drew."""
    scores = table(cases)
    told = {"predictions": "pred", "references": "ref", "structures": ("lesion",), "members": 0, "raters": (1, 1)}
    empty = {"no_reference": 0, "no_prediction": 0, "both": 0}
    return Evaluation(scores, scores.means(), Setup(**(told | facts)), empty=empty)
