"""How far raters draw alike, fitted to a reference that several of them made."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import minimize_scalar

from medsegdiff.fusion.protocol import protocol_probability

LEAST = 1e-6
"""Distance that probabilities keep from 0 and 1, so that no logarithm is infinite."""


def fit_dependence(p: Float[np.ndarray, " n"], reference: Bool[np.ndarray, " n"], *, raters: int) -> float:
    """Find how far raters draw alike: the ρ with the best log score, which is convex in it.

    Args:
        p: How probable a rater draws each pixel, calibrated.
        reference: Whether it is in the majority.
        raters: R.

    Returns:
        ρ, 0 … 1; 0 for one rater.
    """
    if raters == 1:
        return 0.0
    apart = protocol_probability(p, raters)

    def score(dependence: float) -> float:
        told = np.clip(apart + dependence * (p - apart), LEAST, 1 - LEAST)
        return float(-np.mean(np.log(np.where(reference, told, 1 - told))))

    return round(float(minimize_scalar(score, bounds=(0, 1), method="bounded").x), 4)
