"""Units of sizes: how large a voxel is."""

from __future__ import annotations

from math import prod

import numpy as np
from jaxtyping import Float

from medsegdiff.types import Geometry

MM3_PER_ML = 1000
RIGHT = 1e-3
"""Cosine between axes up to which their angle is a right one: distances are off by less than a thousandth."""


def unit_of(geometry: Geometry) -> tuple[float, str]:
    """Tell how large a voxel is, and in which unit: mL in volumes, where axes may be oblique; else mm², or pixels.

    Args:
        geometry: Where the image lies; of a picture whose spacing is 1 that is not known, or makes no difference.

    Returns:
        The size of one voxel, and ``mL``, ``mm2`` or ``px``.
    """
    if len(geometry.shape) == 3:
        return float(abs(np.linalg.det(to_mm(geometry)))) / MM3_PER_ML, "mL"
    known = any(side != 1 for side in geometry.spacing)
    return (prod(geometry.spacing), "mm2") if known else (1.0, "px")


def sheared_axes(geometry: Geometry) -> Float[np.ndarray, "3 3"] | None:
    """Take the axes of a volume that are not at right angles, as under a tilted gantry: spacing tells no distances.

    Args:
        geometry: Where the image lies.

    Returns:
        The matrix from a step in voxels to one in mm; ``None`` where spacing is enough.
    """
    if len(geometry.shape) != 3 or geometry.affine is None:
        return None
    axes = to_mm(geometry)
    steps = axes / np.linalg.norm(axes, axis=0)
    return axes if np.abs(steps.T @ steps - np.eye(3)).max() > RIGHT else None


def to_mm(geometry: Geometry) -> Float[np.ndarray, "n n"]:
    """Take the matrix from a step in voxels to one in mm; of pictures whose spacing is not known, in pixels."""
    return np.diag(geometry.spacing) if geometry.affine is None else geometry.affine[:3, :3]
