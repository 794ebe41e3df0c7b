"""What may be promised of a case that nobody has looked at: its Dice, a bound below it, and whether to accept it.

All three are learned from cases whose references are known, from a score that needs none: the higher the score, the
better the mask, as far as it tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import isotonic_regression
from scipy.stats import beta

from medsegdiff.errors import ShapeError
from medsegdiff.metrics.conformal import conformal_quantile, weights_of
from medsegdiff.metrics.failures import aurc_of_cases

CONFIDENCE = 0.9
"""With which bounds hold, and promises are kept."""
FOLDS = 10
"""Parts by patient, of which each is predicted from the others."""
CHOOSING = 4
"""Parts by patient, of which one chooses the score that the others promise something of."""
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


class Acceptance(NamedTuple):
    """Which cases may pass unseen, and what that rests on."""

    threshold: float
    """The lowest score that is accepted."""
    patients: int
    """Of whom calibration cases were accepted."""
    failed: int
    """Of these, how many had one whose mask was bad."""
    bound: float
    """On the share of such patients."""
    share: float
    """Of the cases that it rests on, accepted."""


def least_patients(risk: float, *, confidence: float = CONFIDENCE) -> int:
    r"""Tell of how many patients, none failing, a promise can be made: :math:`(1 - r)^n \le 1 - c`.

    Args:
        risk: r, that is promised.
        confidence: c.

    Returns:
        n; 45 for 5 % at 90 %.
    """
    return int(np.ceil(np.log1p(-confidence) / np.log1p(-risk)))


def least_to_choose(risk: float, *, confidence: float = CONFIDENCE) -> int:
    """Tell of how many patients a promise can be made where a part of them chooses the score: see `choose`.

    Args:
        risk: That is promised.
        confidence: With which.

    Returns:
        A number of patients; 60 for 5 % at 90 %.
    """
    return -(-least_patients(risk, confidence=confidence) * CHOOSING // (CHOOSING - 1))


def accept(
    score: Float[np.ndarray, " n"],
    failed: Bool[np.ndarray, " n"],
    groups: Sequence[str],
    *,
    risk: float,
    confidence: float = CONFIDENCE,
) -> Acceptance | None:
    """Find the lowest score above which failures are rare enough, so that one may promise it.

    Thresholds are tried from high to low, from the first that accepts patients enough for any promise, until the
    Clopper-Pearson bound on the share of patients with a failed case among those accepted exceeds the risk: tests in a
    fixed order, so that all of them together err no more often than one. A patient counts once, and has failed where
    one of the accepted cases has.

    Source: Clopper & Pearson (1934); fixed-sequence testing for a threshold: Angelopoulos et al. (2021), Learn then
    Test, arXiv:2110.01052, section 2.3.

    Args:
        score: By case.
        failed: By case, whether its mask is bad.
        groups: By case, the patient; empty names: each case is one.
        risk: Share of accepted patients with a failed case that is allowed.
        confidence: With which it is promised.

    Returns:
        The threshold and what it rests on; ``None`` where nothing can be promised.
    """
    order = np.argsort(-score, kind="stable")
    score, failed = score[order], failed[order]
    units = np.array([group or f"\0{number}" for number, group in enumerate(groups)])[order]
    patients, lost = np.cumsum(_first_of(units)), np.zeros(len(units), int)
    lost[failed] = _first_of(units[failed])
    lost = np.cumsum(lost)
    ends = np.flatnonzero(np.r_[np.diff(score) != 0, True][: len(score)])  # the last case of each score
    ends = ends[patients[ends] >= least_patients(risk, confidence=confidence)]
    bounds = _highest_shares(lost[ends], patients[ends], confidence)
    if not (held := int(np.logical_and.accumulate(bounds <= risk).sum())):
        return None
    last = ends[held - 1]
    share = (last + 1) / len(score)
    return Acceptance(float(score[last]), int(patients[last]), int(lost[last]), float(bounds[held - 1]), float(share))


def _first_of(units: np.ndarray) -> Bool[np.ndarray, " n"]:
    """Tell which cases are the first of their patients."""
    first = np.zeros(len(units), bool)
    first[np.unique(units, return_index=True)[1]] = True
    return first


def _highest_shares(
    lost: Int[np.ndarray, " n"], patients: Int[np.ndarray, " n"], confidence: float
) -> Float[np.ndarray, " n"]:
    """Bound shares of patients from above, as Clopper and Pearson do: where all have failed, by 1."""
    kept = patients - lost
    return np.where(kept > 0, beta.ppf(confidence, lost + 1, np.maximum(kept, 1)), 1.0)


def best_score(scores: Mapping[str, Float[np.ndarray, " n"]], dice: Float[np.ndarray, " n"]) -> str:
    """Find the score that ranks the cases best, by `aurc_of_cases`.

    Args:
        scores: By name and case.
        dice: By case.

    Returns:
        Its name; of scores that rank alike, the first.
    """
    return min(scores, key=lambda name: aurc_of_cases(1 - scores[name], 1 - dice))


def choose(
    scores: Mapping[str, Float[np.ndarray, " n"]],
    dice: Float[np.ndarray, " n"],
    groups: Sequence[str],
    *,
    good: float,
    risk: float,
    confidence: float = CONFIDENCE,
) -> tuple[str, Acceptance | None]:
    """Choose the score that ranks the cases best, and find what may be promised of it.

    The best of several seems better than it is on the cases that it was chosen by. So a quarter of the patients
    chooses, and the others, who have not, say from which score on failures are rare (`accept`). Where they allow no
    promise, all choose: that takes nothing back.

    Args:
        scores: By name and case.
        dice: By case.
        groups: By case, the patient; empty names: each case is one.
        good: Dice from which a mask is good.
        risk: Share of accepted patients with a bad mask that is allowed.
        confidence: With which it is promised.

    Returns:
        The name of the score, and the promise, if there is one.
    """
    choosing = dealt(groups, folds=CHOOSING) == 0
    best = best_score({name: of[choosing] for name, of in scores.items()}, dice[choosing])
    trying = np.logical_not(choosing)
    patients = [group for group, one in zip(groups, trying, strict=True) if one]
    found = accept(scores[best][trying], dice[trying] < good, patients, risk=risk, confidence=confidence)
    return (best, found) if found is not None else (best_score(scores, dice), None)
