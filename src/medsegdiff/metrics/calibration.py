"""Whether probabilities mean what they say: calibration error, Brier score, log score.

What they are computed from, sums by bin of probability, is `medsegdiff.metrics.reliability`.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import binary_dilation

from medsegdiff.metrics.base import ENSEMBLE_METRICS
from medsegdiff.metrics.reliability import NUM_BINS, Calibration


@ENSEMBLE_METRICS.register(
    "ece",
    better="lower",
    definition="Expected calibration error of the foreground's probability, 15 bins of equal width, over all pixels "
    "of a case; against the share of raters.",
)
def ece(
    probability: Float[np.ndarray, "*s"],
    reference: Bool[np.ndarray, "*s"] | Float[np.ndarray, "*s"],
    *,
    num_bins: int = NUM_BINS,
    where: Bool[np.ndarray, "*s"] | None = None,
) -> float:
    r"""Compute the expected calibration error of the foreground's probability.

    :math:`\sum_b \frac{n_b}{n} |\bar p_b - \bar y_b|` over bins of equal width of the foreground's probability
    itself: is the foreground there in 30 % of the pixels that are given 30 %? (Others take the probability of the
    likelier class, from ½ to 1, against accuracy: errors on both sides of ½ may then cancel.) Easy background fills
    the lowest bin and makes the number small; ``where=near(…)`` leaves it out.

    Source: Naeini, Cooper & Hauskrecht (2015), for a binary event.

    Args:
        probability: Of the foreground, 0 … 1.
        reference: The mask, or the share of raters that drew each pixel.
        num_bins: Bins.
        where: Pixels that count; ``None``: all.

    Returns:
        In [0, 1]; NaN where no pixel counts.
    """
    return Calibration.of(probability, reference, num_bins=num_bins, where=where).ece()


ENSEMBLE_METRICS.register(
    "ece_near",
    better="lower",
    definition="The same over pixels up to 10 steps away from the masks, where it is not easy; left out where both are "
    "empty.",
)(ece)


@ENSEMBLE_METRICS.register(
    "brier",
    better="lower",
    definition="Mean squared difference of the probability and the share of raters.",
)
def brier(
    probability: Float[np.ndarray, "*s"],
    reference: Bool[np.ndarray, "*s"] | Float[np.ndarray, "*s"],
    *,
    where: Bool[np.ndarray, "*s"] | None = None,
) -> float:
    r"""Compute the Brier score :math:`\overline{(p - y)^2}`.

    With the share of raters as y, a perfect probability has 0; the mean over raters of each one's score is larger by
    :math:`\overline{y (1 - y)}`, their own spread.

    Source: Brier (1950).

    Args:
        probability: Of the foreground, 0 … 1.
        reference: The mask, or the share of raters that drew each pixel.
        where: Pixels that count; ``None``: all.

    Returns:
        In [0, 1]; NaN where no pixel counts.
    """
    return Calibration.of(probability, reference, where=where).brier()


@ENSEMBLE_METRICS.register(
    "nll_near",
    better="lower",
    definition="Log score in nats: negative log-likelihood of the foreground's probability, clipped to [1e-6, "
    "1 − 1e-6], against the share of raters, over the pixels of ece_near; left out where masks are empty.",
)
def nll(
    probability: Float[np.ndarray, "*s"],
    reference: Bool[np.ndarray, "*s"] | Float[np.ndarray, "*s"],
    *,
    where: Bool[np.ndarray, "*s"] | None = None,
) -> float:
    r"""Compute the log score :math:`-\overline{y \ln p + (1 - y) \ln(1 - p)}`, the mean negative log-likelihood.

    It is the mean over raters of each one's score, and smallest, on average, where p is the probability itself: the
    entropy of a pixel is left then. Probabilities are clipped to [1e-6, 1 − 1e-6], so a pixel costs 13.8 nats at most;
    a share of few members, which often is 0 or 1, pays that where raters differ from all of them.

    Source: Good (1952), Rational decisions.

    Args:
        probability: Of the foreground, 0 … 1.
        reference: The mask, or the share of raters that drew each pixel.
        where: Pixels that count; ``None``: all.

    Returns:
        In nats, from 0 up; NaN where no pixel counts.
    """
    return Calibration.of(probability, reference, where=where).nll()


def near(*masks: Bool[np.ndarray, "*s"], margin: int = 10) -> Bool[np.ndarray, "*s"]:
    """Find the pixels around a foreground: the region where calibration is not easy.

    Args:
        *masks: Predicted and reference masks, on one grid.
        margin: Steps from side to side that the union of the masks grows by, in pixels.

    Returns:
        The union, grown.
    """
    union = np.logical_or.reduce(masks)
    return binary_dilation(union, iterations=margin) if margin else union
