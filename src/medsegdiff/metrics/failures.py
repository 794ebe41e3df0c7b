"""Whether a number that needs no reference tells which cases failed: risk by case, the most certain cases first.

`medsegdiff.metrics.selective` asks the same of the pixels within a case.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from medsegdiff.errors import ShapeError
from medsegdiff.metrics.selective import spearman


def risk_of_kept(doubt: Float[np.ndarray, " n"], risk: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Compute the mean risk of the most certain cases, for every number of them.

    Cases that are doubted alike come in any order: each of them counts with their mean.

    Args:
        doubt: By case; any number, the larger the less certain.
        risk: By case: 1 − Dice, say.

    Returns:
        Of 1, 2, … n cases kept.

    Raises:
        ShapeError: If there is no case, or numbers differ.
    """
    if doubt.shape != risk.shape or not len(doubt):
        raise ShapeError(f"Doubt is of {len(doubt)} cases, risk of {len(risk)}; expected equally many, at least one.")
    _, place, count = np.unique(doubt, return_inverse=True, return_counts=True)
    alike = np.bincount(place, weights=risk) / count
    return np.cumsum(alike.repeat(count)) / np.arange(1, len(risk) + 1)


def aurc_of_cases(doubt: Float[np.ndarray, " n"], risk: Float[np.ndarray, " n"]) -> float:
    r"""Compute the area under risk against coverage over cases, :math:`\frac1n \sum_k \frac1k \sum_{i \le k} r_{(i)}`.

    With cases sorted by doubt; what says nothing has the mean risk, on average.

    Source: Geifman, Uziel & El-Yaniv (2019), arXiv:1805.08206; for segmentation Zenk et al. (2025), arXiv:2406.03323.

    Args:
        doubt: By case; any number, the larger the less certain.
        risk: By case.

    Returns:
        In the unit of the risk, lower is better.
    """
    return float(risk_of_kept(doubt, risk).mean())


def failure_scores(doubt: Float[np.ndarray, " n"], risk: Float[np.ndarray, " n"]) -> dict[str, float]:
    """Score a doubt: its rank correlation with risk, its area, and what that exceeds the best order's by.

    Args:
        doubt: By case; any number, the larger the less certain.
        risk: By case.

    Returns:
        ``spearman`` (NaN where either is the same for all), ``aurc``, ``excess_aurc``.
    """
    area = aurc_of_cases(doubt, risk)
    return {"spearman": spearman(doubt, risk), "aurc": area, "excess_aurc": area - aurc_of_cases(risk, risk)}


def by_chance(risk: Float[np.ndarray, " n"]) -> dict[str, float]:
    """Give what cases in any order have, on average.

    Args:
        risk: By case.

    Returns:
        As `failure_scores`.
    """
    return failure_scores(np.zeros_like(risk), risk) | {"spearman": 0.0}
