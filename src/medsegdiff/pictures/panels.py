"""Small pictures of a case: its image, contours of several masks on it, a map in colours."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy.ndimage import binary_erosion

from medsegdiff.pictures.overlay import to_rgb

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
