"""Masks drawn over images: contours, colours, panels of several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import matplotlib as mpl
import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy.ndimage import binary_erosion

from medsegdiff.data.slicing import Slicing
from medsegdiff.data.split import evenly
from medsegdiff.metrics.instances import box_around
from medsegdiff.types import Geometry

COLOURS = np.array(
    [[0, 230, 118], [255, 171, 0], [41, 182, 246], [236, 64, 122], [255, 238, 88], [171, 71, 188], [255, 112, 67]],
    dtype=np.float32,
)
"""Colours of contours by channel, repeated when there are more."""
GLOW = np.array([255, 0, 80], dtype=np.float32)
"""Colour of uncertainty."""
COLUMNS, ROWS = 4, 3
"""Of the slices of a volume."""
BAND = 1 << 17
"""Pixels that are coloured together."""
TILE = 192
"""Slices smaller than half of this many pixels are enlarged."""


def to_rgb(image: Float[np.ndarray, "c h w"]) -> Float[np.ndarray, "h w 3"]:
    """Show an image of any range and number of channels in colours."""
    return _scaled(image, *_limits(image))


def _limits(image: Float[np.ndarray, "c h w"]) -> tuple[float, float]:
    """Find what is shown black, and what white."""
    low, high = np.percentile(image if image.shape[0] == 3 else image[0], [0.5, 99.5])
    return low, high


def _scaled(image: Float[np.ndarray, "c h w"], low: float, high: float) -> Float[np.ndarray, "h w 3"]:
    shown = image if image.shape[0] == 3 else np.repeat(image[:1], 3, axis=0)
    scaled = np.clip((shown - low) / max(high - low, 1e-6), 0, 1) * 255
    return scaled.transpose(1, 2, 0).astype(np.float32)


def colour_of(index: int) -> tuple[int, int, int]:
    """Give the colour of a structure."""
    red, green, blue = COLOURS[index % len(COLOURS)].astype(int).tolist()
    return red, green, blue


def contour(mask: UInt8[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Find the inner border of a mask, thick enough to be seen at the size of the image; look within its box."""
    thickness, border = max(1, round(max(mask.shape) / 256)), np.zeros(mask.shape, bool)
    if (box := box_around(mask > 0)) is not None:
        around = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in box)
        inside = mask[around] > 0
        border[around] = inside & ~binary_erosion(inside, iterations=thickness, border_value=1)
    return border


def overlay(
    image: Float[np.ndarray, "c h w"],
    masks: Iterable[UInt8[np.ndarray, "h w"]],
    uncertainty: Float[np.ndarray, "h w"] | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw the contour of each structure on the image, with uncertain places glowing red; a band at a time."""
    height, width = image.shape[1:]
    limits, step = _limits(image), max(1, BAND // width)
    drawn = np.empty((height, width, 3), np.uint8)
    for rows in (slice(start, start + step) for start in range(0, height, step)):
        rgb = _scaled(image[:, rows], *limits)
        if uncertainty is not None:
            weight = 0.65 * np.clip(uncertainty[rows], 0, 1)[..., None]
            rgb = (1 - weight) * rgb + weight * GLOW
        drawn[rows] = np.clip(rgb, 0, 255).astype(np.uint8)
    for index, mask in enumerate(masks):
        drawn[contour(mask)] = colour_of(index)
    return drawn


def sheet(
    image: Float[np.ndarray, "c i j k"],
    labels: UInt8[np.ndarray, "*r i j k"],
    uncertainty: Float[np.ndarray, "i j k"],
    geometry: Geometry,
    *,
    split: Callable[[UInt8[np.ndarray, "*r h w"]], UInt8[np.ndarray, "s h w"]],
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw slices evenly chosen among those with a structure, or among all where there is none."""
    slicing = Slicing.of(geometry)

    def cut(index: int) -> list[np.ndarray]:
        return [np.ascontiguousarray(slicing.cut(array, index)) for array in (image, labels, uncertainty)]

    every = range(len(slicing))
    held = [index for index in every if slicing.cut(labels, index).any()]
    picked = evenly(held or every, COLUMNS * ROWS)
    tiles = [overlay(pixels, split(of_slice), glow.astype(np.float32)) for pixels, of_slice, glow in map(cut, picked)]
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % COLUMNS)
    rows = [np.hstack(tiles[start : start + COLUMNS]) for start in range(0, len(tiles), COLUMNS)]
    larger = max(1, TILE // max(tiles[0].shape))
    drawn: np.ndarray = np.vstack(rows).repeat(larger, axis=0).repeat(larger, axis=1)
    return drawn


SIDE = 256
"""Of the longer side of a panel, in pixels."""
THICKNESS = 2
"""Of a contour, in pixels of the panel."""
DASH = 5
"""Length of a dash, in pixels of the panel."""
Colour = tuple[int, int, int]


def panel_size(shape: tuple[int, int], spacing: tuple[float, float] = (1.0, 1.0)) -> tuple[int, int]:
    """Find the size at which a slice is shown, true to scale."""
    height, width = (n * s for n, s in zip(shape, spacing, strict=True))
    scale = SIDE / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def plain(image: Float[np.ndarray, "c h w"], size: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
    """Show an image at the size of a panel."""
    return _resized(to_rgb(image).astype(np.uint8), size)


def outlined(
    ground: UInt8[np.ndarray, "H W 3"],
    masks: Sequence[Bool[np.ndarray, "h w"]],
    colours: Sequence[Colour],
    *,
    dashed: Sequence[bool] = (),
) -> UInt8[np.ndarray, "H W 3"]:
    """Draw the contours of masks; where several run together, their colours take turns."""
    drawn, size = ground.copy(), ground.shape[:2]
    if not masks:
        return drawn
    y, x = np.indices(size)
    turn = (y + x) // DASH
    borders = np.stack([_border(mask, size) for mask in masks])
    for index, gaps in enumerate(dashed):
        borders[index] &= (turn % 2 == 0) | ~np.bool_(gaps)
    meeting = np.maximum(borders.sum(axis=0), 1)
    mine = borders & (borders.cumsum(axis=0) - 1 == turn % meeting)
    for border, colour in zip(mine, colours, strict=True):
        drawn[border] = colour
    return drawn


def coloured(values: Float[np.ndarray, "h w"], size: tuple[int, int] | None = None) -> UInt8[np.ndarray, "H W 3"]:
    """Show a map in colours: black for 0, bright for 1; as it is, or at the size of a panel."""
    colours = (mpl.colormaps["magma"](np.clip(values, 0, 1))[..., :3] * 255).round().astype(np.uint8)
    return colours if size is None else _resized(colours, size)


def _border(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Enlarge or shrink a mask with smooth borders, and find its inner border."""
    share = np.asarray(Image.fromarray(mask.astype(np.float32)).resize(size[::-1], Image.Resampling.BILINEAR))
    inside = (share > 0) & (share >= min(0.5, share.max() / 2))  # what is tiny stays to be seen
    border: np.ndarray = inside & ~binary_erosion(inside, iterations=THICKNESS, border_value=1)
    return border


def _resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    smooth = Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(pixels).resize(size[::-1], smooth))
