"""All registered metrics of one pair of masks, with what they share computed once."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from medsegdiff.metrics.base import METRICS
from medsegdiff.metrics.overlap import overlap_scores
from medsegdiff.metrics.surface import TOLERANCE, surface_scores


def all_scores(
    prediction: Bool[np.ndarray, "*s"],
    reference: Bool[np.ndarray, "*s"],
    *,
    spacing: tuple[float, ...],
    tolerance: float = TOLERANCE,
) -> dict[str, float]:
    """Compute every registered metric: overlap from one count, surfaces from one computation of distances.

    Args:
        prediction: Predicted mask.
        reference: Reference mask.
        spacing: Size of a pixel by array axis, in mm (or 1 for pixels).
        tolerance: Of NSD, in the unit of the spacing.

    Returns:
        By metric in the order of registration, those of plug-ins among them.
    """
    shared = overlap_scores(prediction, reference)
    shared |= surface_scores(prediction, reference, spacing=spacing, tolerance=tolerance)
    return {
        entry.name: shared[entry.name]
        if entry.name in shared
        else entry.factory(prediction, reference, spacing=spacing)
        for entry in METRICS
    }
