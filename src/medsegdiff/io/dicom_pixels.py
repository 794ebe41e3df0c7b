"""The values of DICOM slices: in the units of the modality, high where they are shown bright."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Integer

from medsegdiff.errors import DataError, some
from medsegdiff.io.dicom_file import BROKEN, NOT_THE_FILE, Dataset, dicom_library, open_dicom

logging.getLogger("pydicom.pixels").setLevel(logging.CRITICAL)  # what it raises is told in our words

AGAIN = "Copy or export them again; compressed ones need what the extra brings: pip install 'medsegdiff[dicom]'"
"""What may help: a file may be damaged, or its decoder not be there."""


def read_values(folder: Path, names: Sequence[str], size: tuple[int, ...]) -> Float[np.ndarray, "1 i j k"]:
    """Read the pixels slice by slice, so that the volume is in memory only once.

    Padding gets the lowest value of the rest of the series, so that it moves no mean: it is shown black. Hounsfield
    units are left alone, padding too: their window cuts it off.
    """
    stack = _room(folder, (len(names), size[1], size[0]))  # (k, j, i), as the files are laid out
    damaged, padded = [], False
    for k, name in enumerate(names):
        try:
            stack[k], outside = _values(open_dicom(folder / name))
        except NOT_THE_FILE:
            raise
        except BROKEN as error:
            damaged.append(f"{name} ({' '.join(str(error).split())})")
            continue
        stack[k][outside] = np.nan
        padded |= bool(outside.any())
    if damaged:
        raise DataError(f"{folder}: the pixels of {len(damaged)} files can't be read: {some(damaged)}. {AGAIN}")
    if padded:
        fill_padding(stack, folder)
    return stack.transpose(2, 1, 0)[None]


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Say of a file that its pixels can't be read, whatever a decoder raises."""
    try:
        yield
    except NOT_THE_FILE:
        raise
    except BROKEN as error:
        why = " ".join(str(error).split())
        raise DataError(f"{path}: its pixels can't be read ({why}). {AGAIN}") from error


def _room(folder: Path, shape: tuple[int, int, int]) -> Float[np.ndarray, "k j i"]:
    try:
        return np.empty(shape, np.float32)
    except MemoryError as error:
        raise DataError(f"{folder}: its headers tell of {shape} voxels, for which there is no memory.") from error


def _values(dataset: Dataset) -> tuple[Float[np.ndarray, "j i"], Bool[np.ndarray, "j i"]]:
    """Read the values of a slice, and where they are padding."""
    stored = dataset.pixel_array
    outside = np.zeros(stored.shape, bool)
    if dataset.get("Modality") != "CT":  # Hounsfield units are what they are, however they are shown
        outside = padding_in(stored, dataset)
        stored = _inverted(dataset, stored) if dataset.get("PhotometricInterpretation") == "MONOCHROME1" else stored
    if ("RescaleSlope" in dataset) != ("RescaleIntercept" in dataset):  # pydicom would leave the slice as it is stored
        raise DataError("has one of RescaleSlope and RescaleIntercept without the other")
    if dataset.get("RescaleSlope") == 0:
        raise DataError("RescaleSlope is 0, which makes all pixels equal")
    values = dicom_library("pydicom.pixels").apply_modality_lut(stored, dataset).astype(np.float32)
    if bad := int((~np.isfinite(values[~outside])).sum()):
        raise DataError(f"{bad} of {values.size} values are NaN or infinite")
    return values, outside


def padding_in(stored: Integer[np.ndarray, "*s"], dataset: Dataset) -> Bool[np.ndarray, "*s"]:
    """Find the pixels that were put around the image; stored values, whichever sign the header gives them."""
    if dataset.get("PixelPaddingValue") is None:
        return np.zeros(stored.shape, bool)
    ends = [int(dataset.PixelPaddingValue), int(dataset.get("PixelPaddingRangeLimit", dataset.PixelPaddingValue))]
    low, high = sorted(np.array(ends).astype(stored.dtype).tolist())
    outside: np.ndarray = (stored >= low) & (stored <= high)
    return outside


def _inverted(dataset: Dataset, stored: Integer[np.ndarray, "j i"]) -> Integer[np.ndarray, "j i"]:
    """Turn stored values around, so that what is shown bright is high."""
    half = 2 ** (int(dataset.BitsStored) - 1)
    ends = -1 if int(dataset.PixelRepresentation) else 2 * half - 1  # the lowest value and the highest, added
    turned: np.ndarray = ends - stored.astype(np.int64)
    return turned


def fill_padding(stack: Float[np.ndarray, "k j i"], path: Path) -> None:
    """Give padding, which is NaN so far, the lowest value of all others."""
    outside = np.isnan(stack)
    if outside.all():
        raise DataError(f"{path}: holds nothing but padding (PixelPaddingValue). Export the series again.")
    stack[outside] = stack[~outside].min()
