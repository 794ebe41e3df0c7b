"""Patches at key points of a contour: where a lesion's border bends most."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

SIDE = 512
"""Longer side of the masks, in pixels, for which the numbers below are meant; others are brought to it."""
STEP = 4
"""Every how manieth pixel of rows and columns is looked at for the contour."""
SUPPORT = 15
"""How far a key point reaches along rows and columns: three standard deviations of its Gaussian."""
SCALES = ((100, 6, 3), (200, 10, 15), (300, 10, 20), (350, 15, 30), (SIDE**2, 10, 40))
"""Below so many points of a contour: radius of the disc, and neighbours on each side to be compared with."""
FEWEST = 30
"""A contour with fewer points has no key points."""

AROUND = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))
"""Steps to the eight neighbours, counterclockwise."""
ALL_EIGHT = np.ones((3, 3), dtype=bool)

Pixel = tuple[int, int]


def contours(mask: Bool[np.ndarray, "h w"]) -> Iterator[Int[np.ndarray, "n 2"]]:
    """Follow the borders of structures and of the holes in them: closed, from pixel to pixel of the structure.

    A structure is connected through all eight neighbours, the background through four.

    Source: Suzuki & Abe (1985), Topological Structural Analysis of Digitized Binary Images by Border Following,
    algorithm 1, steps 1 and 3.

    Args:
        mask: The structures.

    Yields:
        Rows and columns of a border in order; a pixel may occur twice where a structure is one pixel wide.
    """
    inside = np.pad(mask, 1)
    structures = ndimage.label(inside, structure=ALL_EIGHT)[0]
    holes = ndimage.label(~inside)[0]
    for row, column in _firsts(structures, beyond=0):
        yield _follow(inside, (row, column), (row, column - 1)) - 1
    for row, column in _firsts(holes, beyond=1):  # the first is the background around
        yield _follow(inside, (row, column - 1), (row, column)) - 1


def _firsts(parts: Int[np.ndarray, "h w"], *, beyond: int) -> Iterator[Pixel]:
    """Give the first pixel of each part, row by row."""
    numbers, places = np.unique(parts, return_index=True)
    for place in places[numbers > beyond]:
        yield cast(Pixel, divmod(int(place), parts.shape[1]))


def _follow(inside: Bool[np.ndarray, "h w"], start: Pixel, outside: Pixel) -> Int[np.ndarray, "n 2"]:
    """Go around, the outside always at the same hand."""
    last = _turn(inside, start, outside, clockwise=True)
    border, before, now = [start], last, start
    while last != start:  # else it is a single pixel
        after = _turn(inside, now, before, clockwise=False)
        if (now, after) == (last, start):
            break
        border.append(after)
        before, now = now, after
    return np.array(border)


def _turn(inside: Bool[np.ndarray, "h w"], centre: Pixel, since: Pixel, *, clockwise: bool) -> Pixel:
    """Find the next pixel of the structure around a pixel, from a neighbour of it on; itself where there is none."""
    begin, sign = AROUND.index((since[0] - centre[0], since[1] - centre[1])), -1 if clockwise else 1
    for turn in range(1, 9):
        step = AROUND[(begin + sign * turn) % 8]
        row, column = centre[0] + step[0], centre[1] + step[1]
        if inside[row, column]:
            return row, column
    return centre


def key_points(mask: Bool[np.ndarray, "h w"]) -> Int[np.ndarray, "n 2"]:
    """Find where the border of a structure bends in or out more than anywhere near along it.

    Around each point of the contour, the share of a disc is taken that lies in the structure (of what of the disc lies
    in the image, which is our reading); kept are points where it is less, or more, than at all neighbours.

    Source: Wang et al. (2021), arXiv:2110.03864, section 2.2; the numbers are those of the released code.

    Args:
        mask: Of one structure, its longer side `SIDE`.

    Returns:
        Rows and columns.
    """
    found = [np.empty((0, 2), dtype=int)]
    for contour in contours(mask[::STEP, ::STEP]):
        if len(contour) < FEWEST:
            continue
        points = STEP * contour
        radius, reach = next((radius, reach) for below, radius, reach in SCALES if len(points) < below)
        share = _shares(mask, points, radius=radius)
        along = range(1, reach + 1)
        near = np.stack([np.roll(share, sign * by) for by in along for sign in (-1, 1)])
        found.append(points[(share < near.min(axis=0)) | (share > near.max(axis=0))])
    return np.concatenate(found)


def _shares(mask: Bool[np.ndarray, "h w"], points: Int[np.ndarray, "n 2"], *, radius: int) -> Float[np.ndarray, " n"]:
    """Compute the share of a disc around each point that is structure."""
    down, right = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disc = np.stack([down, right], axis=-1)[down**2 + right**2 <= radius**2]
    places = points[:, None] + disc + radius  # (n, pixels of the disc, 2)
    structure, image = (np.pad(of, radius)[places[..., 0], places[..., 1]] for of in (mask, np.ones_like(mask)))
    return structure.sum(axis=1) / image.sum(axis=1)


def key_patches(mask: Bool[np.ndarray, "h w"], grid: tuple[int, int]) -> Float[np.ndarray, "gh gw"]:
    """Mark the patches that a key point's Gaussian reaches, however little of it.

    Radii and numbers of points are for images whose longer side is 512 pixels. A mask of another size is brought to
    that one first: linearly, blurred by half a pixel of its own so that a border has no stairs, and cut at one half.

    Source: Wang et al. (2021), arXiv:2110.03864, section 2.2; the threshold is that of the released code for ISIC 2016.

    Args:
        mask: Of one structure.
        grid: Patches along height and width.

    Returns:
        0 and 1.
    """
    mask = _resized(mask)
    marked = np.zeros(grid, dtype=np.float32)
    for row, column in key_points(mask):
        tall, wide = (
            slice(max(at - SUPPORT, 0) * cells // side, min(at + SUPPORT, side - 1) * cells // side + 1)
            for at, cells, side in zip((row, column), grid, mask.shape, strict=True)
        )
        marked[tall, wide] = 1
    return marked


def _resized(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h2 w2"]:
    """Bring the longer side to `SIDE`."""
    factor = SIDE / max(mask.shape)
    if factor == 1:
        return mask
    resized = ndimage.zoom(mask.astype(np.float32), factor, order=1, mode="nearest", grid_mode=True)
    return ndimage.gaussian_filter(resized, factor / 2) >= 0.5
