"""Distances between the borders of masks: HD95."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import binary_erosion, distance_transform_edt, find_objects

from medsegdiff.metrics.base import METRICS, Empty, check_masks, value_if_empty


def border(mask: Bool[np.ndarray, "*s"]) -> Bool[np.ndarray, "*s"]:
    """Find the pixels of a mask that touch its outside by a side; beyond the grid is outside.

    Args:
        mask: The mask.

    Returns:
        Its border.
    """
    return mask & ~binary_erosion(mask)


def border_distances(
    a: Bool[np.ndarray, "*s"], b: Bool[np.ndarray, "*s"], *, spacing: tuple[float, ...]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " m"]]:
    """Measure how far each border pixel of one mask is from the border of the other, both ways.

    Args:
        a: A mask with a foreground.
        b: Another.
        spacing: Size of a pixel by array axis.

    Returns:
        Distances from a to b, and from b to a.
    """
    (box,) = find_objects((a | b).astype(np.uint8))  # what lies outside of both changes nothing
    padded = [np.pad(mask[box], 1) for mask in (a, b)]
    border_a, border_b = border(padded[0]), border(padded[1])
    return (
        distance_transform_edt(~border_b, sampling=spacing)[border_a],
        distance_transform_edt(~border_a, sampling=spacing)[border_b],
    )


def diagonal(shape: tuple[int, ...], spacing: tuple[float, ...]) -> float:
    """Measure the grid from corner to corner: the distance charged where a mask is missing.

    Args:
        shape: Of the grid.
        spacing: Size of a pixel by array axis.

    Returns:
        In the unit of the spacing.
    """
    return math.dist([0.0] * len(shape), [n * s for n, s in zip(shape, spacing, strict=True)])


@METRICS.register(
    "hd95",
    better="lower",
    definition="Larger of the two directed 95th percentiles of border distances, in pixels for pictures; no reference "
    "or no prediction: diagonal of the grid; both empty 0.",
)
def hd95(
    prediction: Bool[np.ndarray, "*s"],
    reference: Bool[np.ndarray, "*s"],
    *,
    spacing: tuple[float, ...],
    empty: Empty | None = None,
) -> float:
    """Compute the 95th percentile Hausdorff distance: the larger of the two directed 95th percentiles.

    Percentiles interpolate linearly between border pixels, each counted once. (Some packages pool both
    directions, or weigh border pixels by their area: their numbers differ.)

    Source: Huttenlocher et al. (1993), with percentiles.

    Args:
        prediction: Predicted mask.
        reference: Reference mask.
        spacing: Size of a pixel by array axis, in mm (or 1 for pixels).
        empty: Values for empty masks; ``None``: the diagonal of the grid, and 0 for both empty.

    Returns:
        In the unit of the spacing.
    """
    check_masks(prediction, reference)
    worst = diagonal(prediction.shape, spacing)
    value = value_if_empty(prediction, reference, empty or Empty(worst, worst, 0.0))
    if value is not None:
        return value
    there, back = border_distances(prediction, reference, spacing=spacing)
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))
