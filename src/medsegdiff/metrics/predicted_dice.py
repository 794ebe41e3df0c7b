"""The Dice that a case has by a score that needs no reference, and a bound below it, learned from cases that have one.

The higher the score, the better the mask, as far as it tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import isotonic_regression

from medsegdiff.errors import ShapeError
from medsegdiff.metrics.conformal import conformal_quantile, weights_of

CONFIDENCE = 0.9
"""With which bounds hold, and promises are kept."""
FOLDS = 10
"""Parts by patient, of which each is predicted from the others."""
LEAST = 0.05
"""Added to 1 − Dice where errors are relative to it: a mask that seems perfect may be wrong too."""


class DiceMap(NamedTuple):
    """A score → the Dice that cases of such a score have on average, never falling."""

    scores: tuple[float, ...]
    dice: tuple[float, ...]

    def __call__(self, score: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Predict.

        Args:
            score: Any numbers; beyond those that were seen, the nearest counts.

        Returns:
            In [0, 1].
        """
        return np.asarray(np.interp(score, self.scores, self.dice), float)


def fit_dice_map(
    score: Float[np.ndarray, " n"], dice: Float[np.ndarray, " n"], groups: Sequence[str] | None = None
) -> DiceMap:
    r"""Fit the non-falling function of the score with the least weighted squares: isotonic regression.

    Between scores that were seen it is linear. The cases of a group (a patient) share the weight of one.

    Source: Barlow et al. (1972); Zadrozny & Elkan (2002) for calibration.

    Args:
        score: By case.
        dice: By case, in [0, 1].
        groups: By case; ``None`` or empty names: each case is one.

    Returns:
        The map.

    Raises:
        ShapeError: If there is no case, or numbers of cases differ.
    """
    if not len(score) or len(score) != len(dice):
        raise ShapeError(f"Scores are of {len(score)} cases, Dice of {len(dice)}; expected equally many, at least one.")
    weights = weights_of(groups or [""] * len(score))
    at, place = np.unique(score, return_inverse=True)
    total = np.bincount(place, weights=weights)
    fitted = isotonic_regression(np.bincount(place, weights=weights * dice) / total, weights=total).x
    ends = np.r_[True, np.diff(fitted) != 0] | np.r_[np.diff(fitted) != 0, True]  # of each level, both
    return DiceMap(tuple(at[ends].tolist()), tuple(fitted[ends].tolist()))


def cross_fitted(
    score: Float[np.ndarray, " n"], dice: Float[np.ndarray, " n"], groups: Sequence[str], *, folds: int = FOLDS
) -> Float[np.ndarray, " n"]:
    """Predict the Dice of each case from the others: patients are dealt into parts, and each part has its own map.

    Args:
        score: By case.
        dice: By case.
        groups: By case; empty names: each case is one.
        folds: Parts, at most; of fewer patients each is one.

    Returns:
        By case, in [0, 1]; with a single patient, from that one itself.
    """
    part = dealt(groups, folds=folds)
    if not part.any():
        return fit_dice_map(score, dice, groups)(score)
    found = np.empty(len(score))
    for fold in range(part.max() + 1):
        others = part != fold
        own = fit_dice_map(
            score[others], dice[others], [group for group, one in zip(groups, others, strict=True) if one]
        )
        found[~others] = own(score[~others])
    return found


def dealt(groups: Sequence[str], *, folds: int = FOLDS) -> Int[np.ndarray, " n"]:
    """Deal patients into parts by chance, always in the same way.

    Args:
        groups: By case; empty names: each case is one.
        folds: Parts, at most; of fewer patients each is one.

    Returns:
        By case, the number of its part; those of a patient are in one.
    """
    units = [group or f"\0{number}" for number, group in enumerate(groups)]
    names = sorted(set(units))
    places = dict(zip(np.random.default_rng(0).permutation(names).tolist(), range(len(names)), strict=True))
    return np.array([places[unit] % min(folds, len(names)) for unit in units])


def fit_margin(
    predicted: Float[np.ndarray, " n"],
    dice: Float[np.ndarray, " n"],
    groups: Sequence[str],
    *,
    coverage: float = CONFIDENCE,
) -> float:
    r"""Find how far below its prediction a Dice is to be expected: split conformal prediction.

    The scores are :math:`(\hat d - d) / (1 - \hat d + 0.05)`: the better a mask seems, the less it errs. A new case,
    which is like these, has a Dice of at least `bound_of` its prediction as often as asked: over all cases, not over
    those of a score. The cases of a group share the weight of one, and a new group is meant.

    Source: Vovk, Gammerman & Shafer (2005); Barber et al. (2021), CV+, as predictions are `cross_fitted`; for groups
    Lee, Barber & Willett (2023), arXiv:2306.06342.

    Args:
        predicted: By case, from other cases.
        dice: By case.
        groups: By case; empty names: each case is one.
        coverage: How often the bound is to hold.

    Returns:
        The margin q.
    """
    return conformal_quantile((predicted - dice) / (1 - predicted + LEAST), groups, coverage)


def bound_of(predicted: Float[np.ndarray, "*n"], margin: float) -> Float[np.ndarray, "*n"]:
    r"""Bound the Dice from below: :math:`\hat d - q\,(1 - \hat d + 0.05)`, in [0, 1].

    Args:
        predicted: Predicted Dice.
        margin: q, from `fit_margin`.

    Returns:
        The bound.
    """
    return np.asarray(np.clip(predicted - margin * (1 - predicted + LEAST), 0.0, 1.0))
