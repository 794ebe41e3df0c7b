"""Overlap of every mask of one set with every mask of another, by products of matrices."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from medsegdiff.errors import ShapeError

SLAB = 2**22
"""Numbers that one slab of a product may hold, which bounds memory; sums this small are exact in float32."""


def intersections(
    a: Bool[np.ndarray, "m *s"], b: Bool[np.ndarray, "r *s"], *, slab: int = SLAB
) -> Float[np.ndarray, "m r"]:
    """Count the pixels that are in both, for every mask of one set and every mask of another.

    Args:
        a: Masks.
        b: Masks on the same grid; with ``b is a`` the diagonal holds the sizes of the masks.
        slab: Numbers that one slab of a product may hold.

    Returns:
        Numbers of pixels.
    """
    rows, columns = a.reshape(len(a), -1), b.reshape(len(b), -1)
    counts = np.zeros((len(a), len(b)))
    width = max(slab // max(len(a), len(b)), 1)
    for start in range(0, rows.shape[1], width):
        left = rows[:, start : start + width].astype(np.float32)
        right = left if b is a else columns[:, start : start + width].astype(np.float32)
        counts += left @ right.T
    return counts


def iou_of(common: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """Compute the IoU of every two masks of one set; that of two empty masks is 1.

    Args:
        common: Pixels in common, sizes on the diagonal.

    Returns:
        In [0, 1], with ones on the diagonal.
    """
    sizes = common.diagonal()
    union = sizes[:, None] + sizes[None] - common
    return np.divide(common, union, out=np.ones_like(common), where=union > 0)


def dice_of(common: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """Compute the Dice of every two masks of one set; that of two empty masks is 1.

    Args:
        common: Pixels in common, sizes on the diagonal.

    Returns:
        In [0, 1], with ones on the diagonal.
    """
    sizes = common.diagonal()
    total = sizes[:, None] + sizes[None]
    return np.divide(2 * common, total, out=np.ones_like(common), where=total > 0)


def check_sets(samples: np.ndarray, raters: np.ndarray) -> None:
    """Refuse sets of masks that can't be compared.

    Args:
        samples: Masks of the members.
        raters: Masks of the raters.

    Raises:
        ShapeError: If there is no member or no rater, or the grids differ.
    """
    if not len(samples) or not len(raters) or samples.shape[1:] != raters.shape[1:]:
        raise ShapeError(
            f"The samples are {samples.shape}, the raters {raters.shape}; expected (m, *s) and (r, *s) on the same "
            "grid, at least one of each."
        )


def mean_pair(values: Float[np.ndarray, "n n"]) -> float:
    """Average over pairs of different masks.

    Args:
        values: Of every two masks.

    Returns:
        The mean; 1 for a single mask.
    """
    above = values[np.triu_indices(len(values), 1)]
    return float(above.mean()) if above.size else 1.0
