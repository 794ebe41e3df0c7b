"""Ensembles against several raters: energy distance, matched IoU, best Dice, agreement."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from medsegdiff.metrics.base import ENSEMBLE_METRICS
from medsegdiff.metrics.comparison import Comparison, EnergyDistance
from medsegdiff.metrics.pairs import dice_of, intersections, iou_of, mean_pair


@ENSEMBLE_METRICS.register(
    "ged",
    better="lower",
    definition="Squared generalised energy distance of members and raters, 2E[d(S,R)] − E[d(S,S')] − E[d(R,R')] with"
    " d = 1 − IoU over all pairs, 0 for two empty masks; only for cases with two raters or more; compares"
    " only at the same number of members.",
)
def ged(
    samples: Bool[np.ndarray, "m *s"], raters: Bool[np.ndarray, "r *s"], *, distinct: bool = False
) -> EnergyDistance:
    r"""Compute the squared generalised energy distance between an ensemble and its raters.

    :math:`2\,E[d(S, R)] - E[d(S, S')] - E[d(R, R')]` with :math:`d = 1 - \mathrm{IoU}`, and 0 for two empty masks.
    The default takes the means over all pairs, i = j with its d = 0 among them, as is usual for ensembles of
    segmentations: it is the distance of the two sets as they are, 0 for a set and itself, never below 0. As an
    estimate for the distributions behind them it is too large, by E[d(S, S')] / m + E[d(R, R')] / r, so it only
    compares at the same number of samples. Over distinct pairs it is unbiased, and may be negative.

    Source: Székely & Rizzo (2013), doi:10.1016/j.jspi.2013.03.018; for segmentations Kohl et al. (2018),
    arXiv:1806.05034.

    Args:
        samples: Masks of the members.
        raters: Masks of the raters.
        distinct: Whether a mask is left out of its own partners: the unbiased estimate.

    Returns:
        The distance, in [0, 2], with its parts and the numbers of members and raters.

    Raises:
        ShapeError: If there is no member or no rater (of distinct pairs: not two of each), or the grids differ.

    Example:
        >>> masks = np.eye(2, dtype=bool)
        >>> ged(masks, masks).value
        0.0
    """
    return Comparison.of(samples, raters).ged(distinct=distinct)


def expected_ged(
    masks: Bool[np.ndarray, "k *s"], weights: Float[np.ndarray, " k"], *, num_samples: int, num_raters: int
) -> float:
    r"""Compute what ``ged`` over all pairs gives on average where members are drawn as the raters are.

    Members and raters are independent draws from one known distribution of masks. With :math:`\mu = \sum_{ij}
    w_i w_j d_{ij}`, distinct draws are :math:`\mu` apart on average, and a draw is 0 from itself, so the
    expectation is :math:`2\mu - (1 - 1/m)\mu - (1 - 1/r)\mu = \mu (1/m + 1/r)`. (Over distinct pairs it is 0.)
    A sampler below this is lucky, or knows the raters; or its members were chosen among more candidates
    (`medsegdiff.fusion.herding.herd`), for which this is no floor.

    Args:
        masks: All masks that may be drawn.
        weights: Their probabilities, which sum to 1.
        num_samples: Members, m.
        num_raters: Raters, r.

    Returns:
        The expectation of GED².
    """
    mean_distance = float(weights @ (1 - iou_of(intersections(masks, masks))) @ weights)
    return mean_distance * (1 / num_samples + 1 / num_raters)


@ENSEMBLE_METRICS.register(
    "hm_iou",
    better="higher",
    definition="IoU of members and raters matched one to one (Hungarian), both repeated to their least common "
    "multiple; two empty masks 1.",
)
def hm_iou(samples: Bool[np.ndarray, "m *s"], raters: Bool[np.ndarray, "r *s"]) -> float:
    """Match members and raters one to one so that their mean IoU is largest, and give that IoU.

    Both sets are repeated until they are equally many, least common multiple of m and r; the optimal assignment is
    then the optimal transport between the sets. Its order of members or raters makes no difference. Two empty
    masks match with IoU 1.

    Source: Kohl et al. (2019), arXiv:1905.13077.

    Args:
        samples: Masks of the members.
        raters: Masks of the raters.

    Returns:
        In [0, 1].
    """
    return Comparison.of(samples, raters).hm_iou()


@ENSEMBLE_METRICS.register(
    "d_max",
    better="higher",
    definition="Mean over raters of the Dice of the member that suits each best; two empty masks 1.",
)
def d_max(samples: Bool[np.ndarray, "m *s"], raters: Bool[np.ndarray, "r *s"]) -> float:
    """Average over raters the Dice of the member that suits each best.

    It never falls as members are added, so it compares only at the same number of them. Two empty masks have
    Dice 1.

    Source: Rahman et al. (2023), arXiv:2304.04745.

    Args:
        samples: Masks of the members.
        raters: Masks of the raters.

    Returns:
        In [0, 1].
    """
    return Comparison.of(samples, raters).d_max()


@ENSEMBLE_METRICS.register(
    "rater_dice",
    better="higher",
    definition="Mean Dice of each member with each rater; two empty masks 1. dice@RATER: of the fused mask.",
)
def rater_dice(samples: Bool[np.ndarray, "m *s"], raters: Bool[np.ndarray, "r *s"]) -> Float[np.ndarray, "m r"]:
    """Compute the Dice of each member with each rater; that of two empty masks is 1.

    Args:
        samples: Masks of the members, or one fused mask ``[None]``.
        raters: Masks of the raters.

    Returns:
        Members by raters.
    """
    return Comparison.of(samples, raters).rater_dice()


@ENSEMBLE_METRICS.register(
    "agreement",
    better="",
    definition="Mean Dice of all pairs of members; two empty masks 1; the paper's CI is not defined, this stands for "
    "it.",
)
def agreement(samples: Bool[np.ndarray, "m *s"]) -> float:
    """Compute the mean Dice over all pairs of different members; two empty masks agree, with 1.

    Args:
        samples: Masks of the members.

    Returns:
        In [0, 1]; 1 for a single member.
    """
    return mean_pair(dice_of(intersections(samples, samples)))


def distribution_scores(samples: Bool[np.ndarray, "m *s"], raters: Bool[np.ndarray, "r *s"]) -> dict[str, float]:
    """Compute all numbers of this module from one comparison.

    Args:
        samples: Masks of the members.
        raters: Masks of the raters.

    Returns:
        ``ged``, ``hm_iou``, ``d_max``, ``rater_dice`` (the mean over members and raters) and ``agreement``.
    """
    compared = Comparison.of(samples, raters)
    return {
        "ged": compared.ged().value,
        "hm_iou": compared.hm_iou(),
        "d_max": compared.d_max(),
        "rater_dice": float(compared.rater_dice().mean()),
        "agreement": compared.agreement(),
    }
