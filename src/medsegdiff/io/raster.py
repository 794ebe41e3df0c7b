"""Pictures: PNG, JPEG and TIFF in, PNG out, through Pillow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin

from medsegdiff.errors import DataError
from medsegdiff.io.atomic import atomic_path
from medsegdiff.types import Geometry

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
"""Endings of pictures that are read, in small letters."""
GREY_MODES = ("1", "L", "LA", "F", "I", "I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's names for pictures of one channel."""


def picture_size(path: Path) -> tuple[int, int]:
    """Read height and width from the header alone."""
    with _opened(path) as picture:
        turned = picture.getexif().get(ExifTags.Base.Orientation, 1) >= 5  # a quarter turn, as it is shown
        width, height = picture.size
        if isinstance(picture, TiffImagePlugin.TiffImageFile):  # whose size may or may not be turned already
            width, height = picture.tag_v2[256], picture.tag_v2[257]
        return (width, height) if turned else (height, width)


def picture_channels(path: Path) -> int:
    """Tell from the header whether a picture is grey or coloured."""
    with _opened(path) as picture:
        return 1 if picture.mode in GREY_MODES else 3


def read_image(path: Path) -> tuple[Float[np.ndarray, "c h w"], Geometry]:
    """Read a grey or colour picture of 8 or 16 bits, or of floating point numbers.

    Whole numbers are scaled by the range of their type to 0 … 1. A palette is resolved, an opaque alpha channel
    dropped, a photograph turned as its camera says it is to be shown. Of 16-bit colour, Pillow gives the upper
    8 bits.
    """
    with _opened(path) as picture:
        pixels = _channels(ImageOps.exif_transpose(picture), path)
    image = scale_by_type(pixels).transpose(2, 0, 1)
    check_image(image, str(path))
    return image, Geometry(shape=image.shape[1:], spacing=(1.0, 1.0))


def read_mask(path: Path) -> UInt8[np.ndarray, "h w"]:
    """Read the values of a mask as they are stored; of a palette picture, the indices.

    A JPEG does not keep values: where nearly all are close to 0 or 255, they are taken to be 0 and 255.
    """
    with _opened(path) as picture:
        values = np.asarray(ImageOps.exif_transpose(picture))
    if values.ndim == 3:
        values = _grey(values, path)
    if values.dtype == bool:
        return values.astype(np.uint8)
    if values.min() < 0 or values.max() > 255 or (values != np.floor(values)).any():
        raise DataError(
            f"{path}: mask values go from {values.min()} to {values.max()}; allowed are whole numbers 0 … 255. "
            "Save class indices, or 0 and 255."
        )
    lossy = path.suffix.lower() in (".jpg", ".jpeg") and np.mean(np.abs(values - 127.5) > 64) > 0.95
    return (values > 127).astype(np.uint8) * 255 if lossy and values.max() > 127 else values.astype(np.uint8)


def read_map(path: Path) -> Float[np.ndarray, "h w"]:
    """Read what `write_map` wrote."""
    with _opened(path) as picture:
        return scale_by_type(np.asarray(picture))


def write_mask(path: Path, mask: UInt8[np.ndarray, "h w"]) -> None:
    """Write a mask as an 8-bit PNG, losslessly."""
    with atomic_path(path) as part:
        Image.fromarray(mask).save(part)


def write_map(path: Path, values: Float[np.ndarray, "h w"]) -> None:
    """Write a map of values between 0 and 1 as a 16-bit grey PNG."""
    with atomic_path(path) as part:
        Image.fromarray(np.round(np.clip(values, 0, 1) * 65535).astype(np.uint16)).save(part)


def write_picture(path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
    """Write a colour picture as PNG."""
    with atomic_path(path) as part:
        Image.fromarray(rgb).save(part)


def check_image(image: Float[np.ndarray, "c h w"], name: str) -> None:
    """Refuse an image in which there is nothing to see."""
    if image.size == 0:
        raise DataError(f"{name}: the image has no pixels (shape {image.shape}).")
    if not np.isfinite(image).all():
        bad = int((~np.isfinite(image)).sum())
        raise DataError(f"{name}: {bad} of {image.size} values are NaN or infinite. Repair or remove the image.")
    if image.max() == image.min():
        raise DataError(
            f"{name}: every pixel has the value {image.min():g}; there is nothing to see. Remove the image."
        )


def scale_by_type(pixels: np.ndarray) -> Float[np.ndarray, ...]:
    """Scale whole numbers by the range of their type; leave floating point numbers as they are."""
    if np.issubdtype(pixels.dtype, np.floating):
        return pixels.astype(np.float32)
    top = 65535 if pixels.dtype.itemsize > 1 else 255
    return (pixels / np.float32(top)).astype(np.float32)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture and turn whatever goes wrong while reading into one kind of error that names the file."""
    try:
        with Image.open(path) as picture:
            pages = getattr(picture, "n_frames", 1)
            if pages > 1 and picture.format != "MPO":  # a photograph with a preview
                raise DataError(
                    f"{path}: holds {pages} pages, a volume perhaps. Save each page as a picture of its own."
                )
            yield picture
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path}: can't be read as a picture ({error}). Allowed: {', '.join(SUFFIXES)}; re-export the file."
        ) from error


def _channels(picture: Image.Image, path: Path) -> np.ndarray:
    """Bring a picture to (h, w, 1 or 3)."""
    if picture.mode in ("P", "PA", "CMYK", "YCbCr", "HSV", "LAB", "1"):
        opaque = picture.mode != "PA" and "transparency" not in picture.info
        picture = picture.convert("L" if picture.mode == "1" else "RGB" if opaque else "RGBA")
    pixels = np.asarray(picture)
    if pixels.ndim == 2:
        return pixels[..., None]
    if pixels.shape[2] in (2, 4):
        if pixels[..., -1].min() < 255:
            raise DataError(f"{path}: parts of the picture are transparent. Flatten it onto a background first.")
        return pixels[..., :-1]
    return pixels


def _grey(values: np.ndarray, path: Path) -> np.ndarray:
    if values.shape[2] in (2, 4) and values[..., -1].min() != values[..., -1].max():
        raise DataError(
            f"{path}: the mask is drawn in the transparency. Save class indices, or 0 and 255, in one channel."
        )
    colours = values[..., :3] if values.shape[2] >= 3 else values[..., :1]
    if (colours != colours[..., :1]).any():
        raise DataError(f"{path}: the mask is coloured. Save class indices, or 0 and 255, in one channel.")
    first: np.ndarray = colours[..., 0]
    return first
