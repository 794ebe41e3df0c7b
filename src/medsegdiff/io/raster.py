"""Pictures as images, masks and maps: PNG, JPEG and TIFF in, PNG out. How files are decoded is in `picture`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8

from medsegdiff.errors import DataError
from medsegdiff.io.arrays import check_image, scale_by_type
from medsegdiff.io.atomic import atomic_path
from medsegdiff.io.picture import Palette, Picture, read_picture
from medsegdiff.io.png import in_bands, write_png
from medsegdiff.types import Geometry

HALO = 64
"""How far JPEG may move black and white, in grey levels; what lies between is an edge, or a class."""
MOST_EDGES = 0.05
"""Share of the pixels of a mask that may be edges."""


def read_image(path: Path) -> tuple[Float[np.ndarray, "c h w"], Geometry]:
    """Read a grey or colour picture of 8 or 16 bits, or of floating point numbers, as a viewer shows it.

    Whole numbers are scaled by the range of their type to 0 … 1. A palette is resolved, an opaque alpha channel
    dropped, a photograph turned as its camera says it is to be shown.
    """
    picture = read_picture(path)
    if picture.transparent:
        raise DataError(f"{path}: parts of the picture are transparent. Flatten it onto a background first.")
    image = scale_by_type(picture.values).transpose(2, 0, 1)
    check_image(image, str(path))
    return image, Geometry(shape=image.shape[1:], spacing=(1.0, 1.0))


def read_mask(path: Path) -> UInt8[np.ndarray, "h w"]:
    """Read the values of a mask: the grey levels that are shown, or the indices of a coloured palette.

    Where a pixel is black or white and nothing else, in files of one bit or with a palette of these two, they are 0
    and 1. A JPEG does not keep values: where all but thin edges is close to 0 or 255, they are taken to be that.
    """
    picture = read_picture(path)
    values = _grey(picture, path) if picture.palette is None else _indexed(picture.palette, path)
    if picture.one_bit:
        return (values > 0).astype(np.uint8)
    if values.min() < 0 or values.max() > 255 or (values != np.floor(values)).any():
        raise DataError(
            f"{path}: mask values go from {values.min()} to {values.max()}; allowed are whole numbers 0 … 255. "
            "Save class indices, or 0 and 255."
        )
    return _cleaned(values, path) if picture.lossy else values.astype(np.uint8)


def read_map(path: Path) -> Float[np.ndarray, "h w"]:
    """Read what `write_map` wrote."""
    return scale_by_type(_grey(read_picture(path), path))


def write_mask(path: Path, mask: UInt8[np.ndarray, "h w"]) -> None:
    """Write a mask as an 8-bit PNG, losslessly."""
    with atomic_path(path) as part:
        write_png(part, in_bands(mask), height=len(mask), flat=True)


def write_map(path: Path, values: Float[np.ndarray, "h w"]) -> None:
    """Write a map of values between 0 and 1 as a 16-bit grey PNG."""
    levels = (np.round(np.clip(band, 0, 1) * 65535).astype(np.uint16) for band in in_bands(values))
    with atomic_path(path) as part:
        write_png(part, levels, height=len(values))


def write_picture(path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
    """Write a colour picture as PNG."""
    with atomic_path(path) as part:
        write_png(part, in_bands(rgb), height=len(rgb))


def _grey(picture: Picture, path: Path) -> Shaped[np.ndarray, "h w"]:
    """Take the one channel of a mask."""
    if picture.transparent:
        raise DataError(
            f"{path}: the mask is drawn in the transparency. Save class indices, or 0 and 255, in one channel."
        )
    if picture.values.shape[2] > 1 and (picture.values != picture.values[..., :1]).any():
        raise DataError(f"{path}: the mask is coloured. Save class indices, or 0 and 255, in one channel.")
    grey: np.ndarray = picture.values[..., 0]
    return grey


def _indexed(palette: Palette, path: Path) -> Shaped[np.ndarray, "h w"]:
    """Read a mask with a palette: grey ones are shades of what is shown, coloured ones names of classes."""
    used = set(np.unique(palette.indices).tolist())
    levels = palette.colours[:, 0]
    grey = bool((palette.colours == levels[:, None]).all())
    black, white = ({i for i in used if (palette.colours[i] == level).all()} for level in (0, 255))
    may_be_transparent = black if grey else {0}
    if used & palette.transparent - may_be_transparent:
        raise DataError(f"{path}: parts of the mask are transparent. Save class indices, or 0 and 255, in one channel.")
    if grey:
        two = set(levels.tolist()) == {0, 255}
        return (levels > 0)[palette.indices].astype(np.uint8) if two else levels[palette.indices]
    first = palette.colours[0]
    if (first.any() and black - {0}) or (first.min() < first.max() and white - {0}):
        shown = {index: tuple(palette.colours[index].tolist()) for index in sorted({0, *used})}
        raise DataError(
            f"{path}: the palette of the mask shows {shown}, so 0 can't be the background. Save class indices in one "
            "channel, without a palette, 0 for the background."
        )
    return palette.indices


def _cleaned(values: Shaped[np.ndarray, "h w"], path: Path) -> UInt8[np.ndarray, "h w"]:
    """Undo what JPEG does to black and white; grey levels stay for those who know what they mean."""
    if 0 < values.max() <= 127:
        raise DataError(
            f"{path}: the brightest value of the mask is {values.max()}, and its format (JPEG, or alike) does not keep "
            "class indices. Save them as PNG; of a mask with one structure, 0 and 255."
        )
    between = np.abs(values - 127.5) < HALO
    edges = between.mean() <= MOST_EDGES and not _holds_squares(between)
    return (values > 127).astype(np.uint8) * 255 if edges else values.astype(np.uint8)


def _holds_squares(mask: Bool[np.ndarray, "h w"]) -> bool:
    """Tell whether there are 3×3 pixels together: what is thinner is a line."""
    rows = mask[:-2] & mask[1:-1] & mask[2:]
    return bool((rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:]).any())
