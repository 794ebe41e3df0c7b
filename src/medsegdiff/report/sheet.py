"""A volume at a glance: some of its slices side by side."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

from medsegdiff.data.planes import AXES, pick_plane, slice_of
from medsegdiff.io.grid import canonical_geometry, canonical_view
from medsegdiff.report.overlay import overlay
from medsegdiff.types import Geometry

COLUMNS, ROWS = 4, 3
SIDE = 192
"""Slices smaller than half of this many pixels are enlarged."""


def sheet(
    image: Float[np.ndarray, "c i j k"],
    masks: UInt8[np.ndarray, "s i j k"],
    uncertainty: Float[np.ndarray, "i j k"],
    geometry: Geometry,
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw slices evenly chosen among those with a structure, or among all where there is none.

    Args:
        image: The volume.
        masks: 0 and 1 by structure.
        uncertainty: 0 … 1.
        geometry: Of the volume.

    Returns:
        Red, green, blue.
    """
    plane = pick_plane(canonical_geometry(geometry).spacing)
    image, masks, uncertainty = (canonical_view(array, geometry) for array in (image, masks, uncertainty))
    axes = tuple(axis for axis in range(4) if axis != 1 + AXES[plane])
    held = np.flatnonzero(masks.any(axis=axes))
    chosen = held if len(held) else np.arange(masks.shape[1 + AXES[plane]])
    picked = chosen[np.linspace(0, len(chosen) - 1, min(COLUMNS * ROWS, len(chosen))).round().astype(int)].tolist()
    tiles = [overlay(*(slice_of(array, plane, index) for array in (image, masks, uncertainty))) for index in picked]
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % COLUMNS)
    rows = [np.hstack(tiles[start : start + COLUMNS]) for start in range(0, len(tiles), COLUMNS)]
    larger = max(1, SIDE // max(tiles[0].shape))
    drawn: np.ndarray = np.vstack(rows).repeat(larger, axis=0).repeat(larger, axis=1)
    return drawn
