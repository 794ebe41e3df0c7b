"""Planes of a volume: which way to cut it, and one slice as a picture to be looked at, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Shaped, UInt8

from medsegdiff.config.data import Plane
from medsegdiff.io.grid import canonical_geometry, canonical_view
from medsegdiff.types import Geometry

AXES: dict[Plane, int] = {"sagittal": 0, "coronal": 1, "axial": 2}
"""Plane → the axis of a canonical (right, front, up) volume that counts its slices."""
CLEARLY = 1.2
"""How many times as thick voxels must be along another axis for it to be cut."""


def pick_plane(
    spacing: Sequence[float], asked: Plane | Literal["auto"] = "auto", *, shape: Sequence[float | int] = ()
) -> Plane:
    """Cut axially, unless the voxels are clearly thicker along one other axis, along which neighbours tell least."""
    if asked != "auto":
        return asked
    for plane in reversed(AXES):
        if shape and shape[AXES[plane]] == 1:
            return plane
    thickest = max(AXES, key=lambda plane: spacing[AXES[plane]])
    _, second, most = sorted(spacing)
    return thickest if most > CLEARLY * second else "axial"


def slice_of(volume: Shaped[np.ndarray, "*c x y z"], plane: Plane, index: int) -> Shaped[np.ndarray, "*c h w"]:
    """Cut a slice as it is looked at: the upper end or the front on top, columns to the right or to the front."""
    space = AXES[plane] - 3
    cut = np.moveaxis(volume, space, 0)[index]
    return cut.swapaxes(-1, -2)[..., ::-1, :]


def spacing_of(spacing: Sequence[float], plane: Plane) -> tuple[float, float]:
    """Tell how large the pixels of a slice are."""
    across, down = (s for axis, s in enumerate(spacing) if axis != AXES[plane])
    return down, across


def middle_of(
    volume: Shaped[np.ndarray, "c i j k"], geometry: Geometry, masks: UInt8[np.ndarray, "s i j k"] | None = None
) -> Shaped[np.ndarray, "c h w"]:
    """Cut the slice in the middle, or the one with most of the structures."""
    canonical = canonical_geometry(geometry)
    plane = pick_plane(canonical.spacing, shape=canonical.shape)
    turned = canonical_view(volume, geometry)
    index = turned.shape[1 + AXES[plane]] // 2
    if masks is not None:
        others = tuple(axis for axis in range(4) if axis != 1 + AXES[plane])
        index = int(canonical_view(masks, geometry).sum(axis=others).argmax())
    return np.ascontiguousarray(slice_of(turned, plane, index))
