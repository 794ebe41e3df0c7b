"""Which masks may pass unseen: those of a score above which bad ones are rare, with what may be promised of that.

It is learned from cases whose references are known, for a score that needs none: the higher, the better the mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import beta

from medsegdiff.metrics.failures import aurc_of_cases
from medsegdiff.metrics.predicted_dice import CONFIDENCE, dealt

CHOOSING = 4
"""Parts by patient, of which one chooses the score that the others promise something of."""


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
