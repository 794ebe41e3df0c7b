"""A volume at a glance: some of its slices side by side."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, UInt8

from medsegdiff.data.planes import AXES, pick_plane, slice_of
from medsegdiff.io.grid import canonical_geometry, canonical_view
from medsegdiff.pictures.overlay import overlay
from medsegdiff.types import Geometry

COLUMNS, ROWS = 4, 3
SIDE = 192
"""Slices smaller than half of this many pixels are enlarged."""


def sheet(
    image: Float[np.ndarray, "c i j k"],
    labels: UInt8[np.ndarray, "*r i j k"],
    uncertainty: Float[np.ndarray, "i j k"],
    geometry: Geometry,
    *,
    split: Callable[[UInt8[np.ndarray, "*r h w"]], UInt8[np.ndarray, "s h w"]],
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw slices evenly chosen among those with a structure, or among all where there is none."""
    canonical = canonical_geometry(geometry)
    plane = pick_plane(canonical.spacing, shape=canonical.shape)
    arrays = [canonical_view(array, geometry) for array in (image, labels, uncertainty)]

    def cut(index: int) -> list[np.ndarray]:
        return [np.ascontiguousarray(slice_of(array, plane, index)) for array in arrays]

    every = range(canonical.shape[AXES[plane]])
    held = [index for index in every if slice_of(arrays[1], plane, index).any()]
    chosen = np.array(held or every)
    picked = chosen[np.linspace(0, len(chosen) - 1, min(COLUMNS * ROWS, len(chosen))).round().astype(int)].tolist()
    tiles = [overlay(pixels, split(of_slice), glow.astype(np.float32)) for pixels, of_slice, glow in map(cut, picked)]
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % COLUMNS)
    rows = [np.hstack(tiles[start : start + COLUMNS]) for start in range(0, len(tiles), COLUMNS)]
    larger = max(1, SIDE // max(tiles[0].shape))
    drawn: np.ndarray = np.vstack(rows).repeat(larger, axis=0).repeat(larger, axis=1)
    return drawn
