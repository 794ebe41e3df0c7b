"""Arrays as images: channels first, scaled by the type of their numbers, named by their pixels."""

from __future__ import annotations

import hashlib

import numpy as np
from jaxtyping import Float

from medsegdiff.errors import DataError, ShapeError


def channels_first(pixels: np.ndarray) -> Float[np.ndarray, "c h w"]:
    """Bring (h w), (h w 3) or (c h w) to (c h w)."""
    if pixels.ndim == 2:
        pixels = pixels[None]
    elif pixels.ndim == 3 and pixels.shape[2] in (1, 3) and pixels.shape[0] not in (1, 3):
        pixels = pixels.transpose(2, 0, 1)
    if pixels.ndim != 3:
        raise ShapeError(f"An image has the shape {pixels.shape}; allowed are (h, w), (h, w, 3) and (c, h, w).")
    return scale_by_type(pixels)


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
    """Scale whole numbers by the range of their type to 0 … 1; leave floating point numbers as they are.

    Of wider types than 16 bits, the range is that of 8 bits if these hold all values, else that of 16.
    """
    if np.issubdtype(pixels.dtype, np.floating) or pixels.dtype == bool:
        return pixels.astype(np.float32)
    wide = pixels.dtype.itemsize > 1 and (pixels.dtype.itemsize == 2 or pixels.max(initial=0) > 255)
    return (pixels / np.float32(65535 if wide else 255)).astype(np.float32, copy=False)


def image_key(image: Float[np.ndarray, "c *s"]) -> str:
    """Name an image by its pixels, so that its noise is the same under any file name and in any order."""
    digest = hashlib.blake2b(digest_size=16)
    for channel in image:
        for part in channel:  # a row, or a plane of a volume: never a copy of all of it
            digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()
