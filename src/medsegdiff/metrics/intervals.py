"""Sizes that members draw: an interval for the true size, and scores of both; `conformal` calibrates it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from medsegdiff.metrics.base import ENSEMBLE_METRICS

COVERAGE = 0.9
"""How often an interval is to hold the true size."""
LEAST = 1.0
"""What a mean size is at least, in pixels, where something is relative to it."""


class Stretch(NamedTuple):
    """How far an interval is moved outwards at its ends, relative to the mean size; below 0: inwards."""

    below: float = 0.0
    above: float = 0.0
    least: float = 0.0
    """What that mean is at least, as a share of the image's pixels: an error of a few pixels is many times the size of
    what is nearly missed."""


class Interval(NamedTuple):
    """A size, and between what it lies."""

    mean: float
    low: float
    high: float


def interval_of(
    sizes: Int[np.ndarray, " m"] | Float[np.ndarray, " m"],
    stretch: Stretch = Stretch(),  # noqa: B008 - it can't be changed
    *,
    pixels: int | None = None,
    coverage: float = COVERAGE,
) -> Interval:
    r"""Compute mean and central interval of the sizes that members draw, calibrated if a stretch is known.

    :math:`[q_{.05} - b\,\bar s,\; q_{.95} + a\,\bar s]` with the quantiles of the m sizes (linear between them), their
    mean :math:`\bar s`, at least 1 pixel and what the stretch says, and the stretch (b, a); never below 0, nor above
    all pixels. Ends that an inward stretch moves past each other change places. Sizes come from whole masks: no map of
    pixels' probabilities has this interval.

    Args:
        sizes: Of the members, in pixels.
        stretch: As `fit_stretch` finds it.
        pixels: Of the image; ``None``: not known.
        coverage: Share of the sizes between the quantiles.

    Returns:
        In pixels.
    """
    mean, most = float(np.mean(sizes)), np.inf if pixels is None else pixels
    low, high = np.quantile(sizes, [(1 - coverage) / 2, (1 + coverage) / 2])
    scale = max(mean, LEAST, stretch.least * (pixels or 0))
    low, high = np.sort(np.clip([low - stretch.below * scale, high + stretch.above * scale], 0, most))
    return Interval(mean, float(low), float(high))


@ENSEMBLE_METRICS.register(
    "size_crps",
    better="lower",
    definition="CRPS of the sizes that members draw against the true size, mean|x − y| − ½ mean|x − x'| over all "
    "pairs, in pixels or mL; for a single member its error.",
)
def size_crps(sizes: Int[np.ndarray, " m"] | Float[np.ndarray, " m"], truth: float) -> float:
    r"""Compute the continuous ranked probability score of sizes.

    :math:`\overline{|x - y|} - \tfrac12 \overline{|x - x'|}` over all pairs, x with itself among them: of the
    members as they are it is the integral of the squared difference between their distribution and the step at y.
    As an estimate for more members it is too large by half their mean difference / m.

    Source: Gneiting & Raftery (2007), doi:10.1198/016214506000001437, equation 21.

    Args:
        sizes: Of the members.
        truth: The true size, in the same unit.

    Returns:
        In that unit, from 0 up.
    """
    x = np.asarray(sizes, np.float64)
    return float(np.abs(x - truth).mean() - 0.5 * np.abs(x[:, None] - x).mean())


@ENSEMBLE_METRICS.register(
    "size_covered",
    better="",
    definition="Share of cases whose true size lies in the interval that was stated with the segmentation: 0.9, if "
    "intervals are as wide as they should be.",
)
def size_covered(interval: Interval, truth: float) -> float:
    """Tell whether an interval holds the true size, its ends included.

    Args:
        interval: As stated.
        truth: The true size, in the same unit.

    Returns:
        1 or 0.
    """
    return float(interval.low <= truth <= interval.high)


@ENSEMBLE_METRICS.register(
    "size_width",
    better="lower",
    definition="Width of that interval, in pixels or mL; the narrower the better among those that hold as often.",
)
def size_width(interval: Interval) -> float:
    """Compute the width of an interval.

    Args:
        interval: As stated.

    Returns:
        In its unit.
    """
    return interval.high - interval.low
