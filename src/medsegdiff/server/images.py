"""Images as a browser can read them: pictures as PNG of 8 or 16 bits, volumes as NIfTI."""

from __future__ import annotations

import gzip
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped
from nibabel.nifti1 import Nifti1Image
from PIL import Image

from medsegdiff.data.dataset import CaseFiles
from medsegdiff.errors import DataError
from medsegdiff.io import nifti
from medsegdiff.io.image import read_channels, read_geometry

COLOURS = 3
"""Channels of a picture that are shown together."""


@dataclass(frozen=True)
class Body:
    """What is sent: bytes, or a file as it lies."""

    content: bytes | Path
    type: str
    name: str = ""
    """As which it is saved."""


def channels_of(case: CaseFiles) -> int:
    """Count the channels of an image, from headers alone."""
    return sum(read_geometry(path)[1] for path in case.images)


def image_of(case: CaseFiles, *, channel: int = 0) -> Body:
    """Give an image, or of more than three channels one."""
    first = case.images[0]
    if nifti.is_volume(first) and read_geometry(case.images[min(channel, len(case.images) - 1)])[1] == 1:
        file = case.images[min(channel, len(case.images) - 1)]
        return Body(file, "application/gzip" if file.suffix.lower() == ".gz" else "application/octet-stream")
    pixels, geometry = read_channels(case.images)
    if not 0 <= channel < len(pixels):
        raise DataError(f"{case.name} has {len(pixels)} channels; allowed are 0 … {len(pixels) - 1}.")
    if pixels.ndim == 4:
        volume = Nifti1Image(_shortest(pixels[channel]), geometry.affine)
        return Body(gzip.compress(volume.to_bytes(), compresslevel=1), "application/gzip")
    shown = pixels if len(pixels) == COLOURS else pixels[channel : channel + 1]
    return Body(_png(shown), "image/png")


def _shortest(voxels: Float[np.ndarray, "i j k"]) -> Shaped[np.ndarray, "i j k"]:
    """Write whole numbers as such, as CT has them."""
    whole = np.abs(voxels).max() < 1 << 15 and np.array_equal(voxels, np.rint(voxels))
    return voxels.astype(np.int16) if whole else voxels


def _png(pixels: Float[np.ndarray, "c h w"]) -> bytes:
    """Write colours with 8 bits, grey from its least to its largest value with 16."""
    low, high = float(pixels.min()), float(pixels.max())
    low, high = (0.0, 1.0) if low >= 0 and high <= 1 and len(pixels) == COLOURS else (low, high)
    share = (pixels - low) / max(high - low, 1e-12)
    if len(pixels) == COLOURS:
        array = np.round(share * 255).astype(np.uint8).transpose(1, 2, 0)
    else:
        array = np.round(share[0] * 65535).astype(np.uint16)
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG", compress_level=1)
    return file.getvalue()
