"""Split conformal prediction: how far an interval is moved so that it holds the true size as often as it says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import t as student_t

from medsegdiff.errors import ShapeError
from medsegdiff.metrics.intervals import COVERAGE, LEAST, Stretch, interval_of


def fit_stretch(
    sizes: Int[np.ndarray, "c m"] | Float[np.ndarray, "c m"],
    truth: Int[np.ndarray, " c"] | Float[np.ndarray, " c"],
    groups: Sequence[str] | None = None,
    *,
    pixels: Int[np.ndarray, " c"] | None = None,
    coverage: float = COVERAGE,
) -> Stretch:
    r"""Find the stretch with which intervals hold the true size as often as they say: split conformal prediction.

    The scores of a validation case are :math:`(q_{.05} - y) / \bar s` and :math:`(y - q_{.95}) / \bar s`; each end is
    stretched by the :math:`\lceil (n + 1)\,(1 + \mathrm{coverage}) / 2 \rceil`-th smallest of n. A new case, which is
    like those of validation, is then held at least that often, whatever the model. With groups (patients), the cases
    of a group share the weight of one, and a new group is meant. Of fewer than 19 groups (for 90 %) that rank is
    beyond the last: the bound of a further normal score, :math:`\bar x + t_{n-1}\, s \sqrt{1 + 1/n}`, or the largest
    of the n, whichever is more. It holds as often as stated where scores are normal; nothing is guaranteed.

    A case whose members draw next to nothing has a score of any size, and would widen the intervals of all others. So
    :math:`\bar s` is at least as large a share of its image as the structure usually is: the median over the cases that
    hold it. (It is known before a new case, but follows from the same ones: the guarantee is as good as exact.)

    Source: Romano, Patterson & Candès (2019), arXiv:1905.03222, for each end by itself; for groups Lee, Barber &
    Willett (2023), arXiv:2306.06342; of few Hahn & Meeker (1991), Statistical Intervals, section 4.7.

    Args:
        sizes: By case and member, in pixels.
        truth: By case, in pixels.
        groups: By case; ``None`` or empty names: each case is one.
        pixels: Of each image; ``None``: not known, then means are 1 pixel at least.
        coverage: How often the interval is to hold the true size.

    Returns:
        Below and above, and the least share that is taken for a mean.

    Raises:
        ShapeError: If there is no case, or numbers of cases differ.
    """
    if not len(sizes) or len(sizes) != len(truth) or len(sizes) != len(groups or sizes):
        raise ShapeError(
            f"Sizes are of {len(sizes)} cases, true sizes of {len(truth)}"
            + (f", groups of {len(groups)}" if groups else "")
            + "; expected equally many, at least one."
        )
    mean, low, high = np.array([interval_of(of, coverage=coverage) for of in sizes]).T
    least, grids = (0.0, 0) if pixels is None else (_usual(truth / pixels), pixels)
    scale = np.maximum(mean, np.maximum(LEAST, least * grids))
    patients, level = groups or [""] * len(sizes), (1 + coverage) / 2
    below, above = (conformal_quantile(missed / scale, patients, level) for missed in (low - truth, truth - high))
    return Stretch(below, above, least)


def _usual(shares: Float[np.ndarray, " c"]) -> float:
    """Find how large a structure usually is, where it is."""
    there = shares[shares > 0]
    return float(np.median(there)) if there.size else 0.0


def weights_of(groups: Sequence[str]) -> Float[np.ndarray, " c"]:
    """Give each group the weight 1, shared by its cases; a case of none is a group."""
    count = Counter(groups)
    return np.array([1 / count[group] if group else 1.0 for group in groups])


def conformal_quantile(scores: Float[np.ndarray, " c"], groups: Sequence[str], level: float) -> float:
    r"""Find what the score of a case of a new group does not exceed, with a probability of at least ``level``.

    The smallest score up to which there is a weight of level · (n + 1), where n groups weigh 1 each, shared by their
    cases. Where that is beyond the largest, see `fit_stretch`.

    Args:
        scores: By case.
        groups: By case; empty names: each case is one.
        level: In (0, 1).

    Returns:
        The quantile.
    """
    weights = weights_of(groups)
    order = np.argsort(scores, kind="stable")
    enough = np.cumsum(weights[order]) >= level * (weights.sum() + 1) - 1e-9
    return float(scores[order][np.argmax(enough)]) if enough.any() else _bound(scores, weights, level)


def _bound(scores: Float[np.ndarray, " c"], weights: Float[np.ndarray, " c"], level: float) -> float:
    """Bound a further score where there are too few for a rank: as if they were normal, but not below the largest."""
    largest, n = float(scores.max()), float(weights.sum())
    if n < 2:
        return largest
    mean = np.average(scores, weights=weights)
    std = np.sqrt(np.average((scores - mean) ** 2, weights=weights) * n / (n - 1))
    return max(largest, float(mean + student_t.ppf(level, n - 1) * std * np.sqrt(1 + 1 / n)))
