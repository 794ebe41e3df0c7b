"""Outlines of masks: polygons with holes, along which a mask can be filled again pixel by pixel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from contourpy import FillType, contour_generator
from jaxtyping import Float, UInt8
from scipy.ndimage import find_objects, label

Ring = Float[np.ndarray, "_ 2"]
"""Corners (x, y) in pixels, from the centre of the first pixel; the last one is not the first again."""
ALL = np.ones((3, 3), int)
"""Pixels that share a corner are connected."""


@dataclass(frozen=True)
class Outline:
    """The outline of a connected part of a mask."""

    outer: Ring
    holes: tuple[Ring, ...] = ()

    @property
    def rings(self) -> tuple[Ring, ...]:
        """All rings; the part is where an odd number of them are around."""
        return (self.outer, *self.holes)


def outlines(mask: UInt8[np.ndarray, "y x"]) -> Iterator[Outline]:
    """Draw lines half-way between the pixels of a mask and those around them.

    Whoever fills them by the centres of pixels has the mask again. Corners lie at halves, those on a straight line are
    left out.

    Args:
        mask: 0 and 1.

    Yields:
        Outlines of its connected parts, a part at a time. Outer rings run counter-clockwise where y points upwards,
        holes the other way.
    """
    numbered, _ = label(mask, ALL)
    for number, box in enumerate(find_objects(numbered), start=1):
        inside = np.pad((numbered[box] == number).astype(np.float64), 1)
        drawn = contour_generator(z=inside, fill_type=FillType.OuterOffset).filled(0.5, 2)
        shift = np.array([box[1].start - 1, box[0].start - 1])
        for points, offsets in zip(*drawn, strict=True):
            rings = [_corners(ring[:-1] + shift) for ring in np.split(points, offsets[1:-1].astype(int))]
            yield Outline(rings[0], tuple(rings[1:]))


def keyhole(outline: Outline) -> Ring:
    """Join holes to the outer ring by cuts of no width, so that one ring is the whole outline.

    Cuts run along y half-way between two columns of pixels, so that no centre of a pixel lies on one: readers that
    count crossings, and those that count turns, agree.

    Args:
        outline: As `outlines` draws it.

    Returns:
        The ring.
    """
    joined = outline.outer
    starts = [(ring, int(np.lexsort((ring[:, 1], ring[:, 0]))[0])) for ring in outline.holes]  # the leftmost corner
    for ring, start in sorted(starts, key=lambda of: float(of[0][of[1], 1])):  # those above it are joined already
        x, y = ring[start]
        edge, met = _above(joined, x, y)
        cut = np.array([[x, met]])
        joined = np.concatenate(
            [joined[: edge + 1], cut, np.roll(ring, -start, axis=0), ring[start : start + 1], cut, joined[edge + 1 :]]
        )
    return joined


def _above(ring: Ring, x: float, y: float) -> tuple[int, float]:
    """Find the edge that a ray from a point to lower y meets first, and where."""
    ends = np.roll(ring, -1, axis=0)
    low, high = np.minimum(ring, ends), np.maximum(ring, ends)
    (x_0, y_0), (x_1, y_1) = ring.T, ends.T
    along = np.divide(x - x_0, x_1 - x_0, out=np.ones(len(ring)), where=x_0 != x_1)
    met = np.where(x_0 == x_1, high[:, 1], y_0 + along * (y_1 - y_0))
    met[(x < low[:, 0]) | (x > high[:, 0]) | (met >= y)] = -np.inf
    edge = int(np.argmax(met))
    return edge, float(met[edge])


def _corners(ring: Ring) -> Ring:
    """Leave out points between two others."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    return ring[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]
