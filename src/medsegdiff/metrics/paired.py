"""Statistics of paired differences: their interval, a test, and its correction for many tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.stats import bootstrap, wilcoxon


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
    """Test whether differences lie symmetrically around 0.

    Source: Wilcoxon (1945), Individual comparisons by ranking methods.

    Args:
        values: By case or group.

    Returns:
        The two-sided p; 1 where all are 0.
    """
    return float(wilcoxon(values).pvalue) if values.any() else 1.0


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
