"""What users call an image, read as a case."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from medsegdiff.data.listing import CaseFiles
from medsegdiff.errors import ShapeError
from medsegdiff.io.image import image_name, read_channels
from medsegdiff.io.raster import check_image, scale_by_type
from medsegdiff.types import Case, Geometry

ImageLike = str | Path | np.ndarray | Tensor | CaseFiles | Case
"""A file, an array (h w), (h w 3) or (c h w), the files of a case, or a case that was read already."""


def read_case(image: ImageLike, number: int = 0) -> Case:
    """Read whatever a user calls an image."""
    if isinstance(image, Case):
        return image
    if isinstance(image, (str, Path)):
        image = CaseFiles(image_name(Path(image)), (Path(image),))
    if isinstance(image, CaseFiles):
        pixels, geometry = read_channels(image.images)
        return Case(image.name, pixels, None, geometry)
    pixels = _channels_first(np.asarray(image.detach().cpu() if isinstance(image, Tensor) else image))
    check_image(pixels, f"image {number}")
    name = f"image_{number}_{image_key(pixels)[:8]}"
    return Case(name, pixels, None, Geometry(shape=pixels.shape[1:], spacing=(1.0, 1.0)))


def _channels_first(pixels: np.ndarray) -> Float[np.ndarray, "c h w"]:
    """Bring (h w), (h w 3) or (c h w) to (c h w)."""
    if pixels.ndim == 2:
        pixels = pixels[None]
    elif pixels.ndim == 3 and pixels.shape[2] in (1, 3) and pixels.shape[0] not in (1, 3):
        pixels = pixels.transpose(2, 0, 1)
    if pixels.ndim != 3:
        raise ShapeError(f"An image has the shape {pixels.shape}; allowed are (h, w), (h, w, 3) and (c, h, w).")
    return scale_by_type(pixels)


def image_key(image: Float[np.ndarray, "c *s"]) -> str:
    """Name an image by its pixels, so that its noise is the same under any file name and in any order."""
    digest = hashlib.blake2b(digest_size=16)
    for channel in image:
        for part in channel:  # a row, or a plane of a volume: never a copy of all of it
            digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()
