"""All metrics of a case at once, and what can be said of differences between cases that are paired."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import bootstrap, wilcoxon

from medsegdiff.metrics.base import METRICS
from medsegdiff.metrics.overlap import overlap_scores
from medsegdiff.metrics.surface import TOLERANCE, surface_scores


def bootstrap_interval(values: Float[np.ndarray, " n"]) -> tuple[float, float] | None:
    """Estimate the 95 % interval of a mean by the bootstrap: 2000 resamples, percentiles, seed 0.

    Args:
        values: By case or group.

    Returns:
        Low and high; ``None`` for fewer than two values.
    """
    if len(values) < 2:
        return None
    rng = np.random.default_rng(0)
    drawn = bootstrap((values,), np.mean, n_resamples=2000, batch=100, method="percentile", rng=rng)
    return float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)


def signed_rank(values: Float[np.ndarray, " n"]) -> float:
    """Test whether differences lie symmetrically around 0; those that are 0 say nothing, and are left out.

    Source: Wilcoxon (1945), Individual comparisons by ranking methods.

    Args:
        values: By case or group.

    Returns:
        The two-sided p; 1 where all are 0.
    """
    nonzero = values[values != 0]  # scipy takes the normal approximation where it is given zeros
    return float(wilcoxon(nonzero).pvalue) if len(nonzero) else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct for the number of tests: the k-th smallest of m values of p is multiplied by m − k + 1.

    Source: Holm (1979), A simple sequentially rejective multiple test procedure.

    Args:
        p_values: Of all tests.

    Returns:
        Adjusted, in the same order; never above 1, and rising as the given ones do.
    """
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.minimum(1, np.maximum.accumulate(np.asarray(p_values, float)[order] * factors))
    back = np.empty_like(adjusted)
    back[order] = adjusted
    return back.tolist()


def all_scores(
    prediction: Bool[np.ndarray, "*s"],
    reference: Bool[np.ndarray, "*s"],
    *,
    spacing: tuple[float, ...],
    axes: Float[np.ndarray, "w w"] | None = None,
    tolerance: float = TOLERANCE,
    total: int | None = None,
) -> dict[str, float]:
    """Compute every registered metric: overlap from one count, surfaces from one computation of distances.

    Args:
        prediction: Predicted mask.
        reference: Reference mask.
        spacing: Size of a pixel by array axis, in mm (or 1 for pixels).
        axes: Those of a sheared grid: see `medsegdiff.metrics.units.sheared_axes`.
        tolerance: Of NSD, in the unit of the spacing.
        total: Pixels that count, those of both masks among them; ``None``: all of the grid.

    Returns:
        By metric in the order of registration, those of plug-ins among them.
    """
    shared = overlap_scores(prediction, reference, total=total)
    shared |= surface_scores(prediction, reference, spacing=spacing, axes=axes, tolerance=tolerance)
    return {
        entry.name: shared[entry.name]
        if entry.name in shared
        else entry.factory(prediction, reference, spacing=spacing)
        for entry in METRICS
    }
