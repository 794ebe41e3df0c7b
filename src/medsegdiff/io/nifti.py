"""Volumes: NIfTI-1 and NIfTI-2 in one file, plain or gzipped, in and out through nibabel; `grid` turns them."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Float, Integer, Shaped
from nibabel.arrayproxy import ArrayProxy
from nibabel.fileholders import FileHolder
from nibabel.nifti1 import Nifti1Image
from nibabel.nifti2 import Nifti2Header, Nifti2Image

from medsegdiff.errors import DataError, GeometryError, MedSegDiffError
from medsegdiff.io.atomic import atomic_path
from medsegdiff.io.names import check_volume_name
from medsegdiff.io.names import is_volume as is_volume
from medsegdiff.io.nifti_header import geometry_from, header_for
from medsegdiff.types import Geometry

FORMATS = {348: Nifti1Image, 540: Nifti2Image}
"""By the length of the header in bytes, which is the first number in the file."""
LABEL_TOLERANCE = 1e-4
"""How far a label may be from a whole number: the slope of a file is rounded to 32 bits."""
FINE_SLOPE = 0.5
"""Below it, labels lie on steps of the slope, and each is half a step from its number at most."""

MOST_PACKED = 1032
"""Bytes that DEFLATE packs into one, at most."""
MOST_BEHIND = 1 << 26
"""Bytes that are read behind the voxels, in search of the end."""


def read_volume(path: Path) -> tuple[Float[np.ndarray, "c i j k"], Geometry]:
    """Read an image in its own units, with its axes in the file's order; slope and intercept are applied.

    The fourth axis holds channels, or time points; a vector image has its channels in the fifth. Axes of length 1
    at the end may be there or not, so a single slice is a volume too.
    """
    voxels, geometry, _ = _read(path)
    with np.errstate(over="ignore", invalid="ignore"):  # what float32 can't hold becomes infinite and is refused
        image = np.ascontiguousarray(np.moveaxis(voxels, -1, 0), dtype=np.float32)
    if bad := int((~np.isfinite(image)).sum()):
        raise DataError(f"{path}: {bad} of {image.size} voxels are NaN or infinite. Repair or remove the volume.")
    return image, geometry


def read_geometry(path: Path) -> tuple[Geometry, int]:
    """Read from the header alone where a volume lies and how many channels it has."""
    with _opened(path) as file:
        volume = _format(file, path).from_file_map({"image": FileHolder(fileobj=file)}, mmap=False)
        *space, channels = _axes(volume.shape, path)
        return geometry_from(volume.header, tuple(space), str(path)), channels


def read_labels(path: Path) -> tuple[Integer[np.ndarray, "i j k"], Geometry]:
    """Read class indices, whatever type of number they are stored in."""
    voxels, geometry, slope = _read(path)
    if voxels.shape[3] > 1:
        raise DataError(f"{path}: the labels have {voxels.shape[3]} channels; allowed is 1. Save class indices in one.")
    labels = _rounded(voxels[..., 0], path, slope=slope)
    return np.ascontiguousarray(labels, dtype=_smallest(labels, path, np.uint8, np.int32)), geometry


def write_labels(path: Path, labels: Integer[np.ndarray, "i j k"], geometry: Geometry) -> None:
    """Write class indices as uint8, uint16 or int32, the first of these that holds them."""
    _write(path, labels.astype(_smallest(labels, path, np.uint8, np.uint16, np.int32)), geometry)


def write_map(path: Path, values: Float[np.ndarray, "*c i j k"], geometry: Geometry) -> None:
    """Write real numbers, probabilities say, as float32."""
    voxels = np.moveaxis(values, 0, -1) if values.ndim == 4 else values
    _write(path, voxels.astype(np.float32), geometry)


def _read(path: Path) -> tuple[Shaped[np.ndarray, "i j k c"], Geometry, float]:
    """Read voxels, where they lie, and the step between neighbouring values."""
    with _opened(path) as file:
        volume = _format(file, path).from_file_map({"image": FileHolder(fileobj=file)}, mmap=False)
        shape = _axes(volume.shape, path)
        _check_voxels(volume, path)
        _check_room(volume, file)
        voxels = np.asanyarray(volume.dataobj)
        _finish(file)
        slope = abs(float(cast(ArrayProxy, volume.dataobj).slope))
        return voxels.reshape(shape), geometry_from(volume.header, shape[:3], str(path)), slope


def _finish(file: BufferedIOBase) -> None:
    """Read to the end, where gzip checks its sum, unless that is far: what lies behind the voxels is no image."""
    left = MOST_BEHIND
    while left > 0 and (rest := file.read(min(left, 1 << 20))):
        left -= len(rest)


@contextmanager
def _opened(path: Path) -> Iterator[BufferedIOBase]:
    """Open and unpack a file, and turn whatever goes wrong while reading into one kind of error that names it."""
    try:
        with path.open("rb") as raw:
            packed = raw.peek(2)[:2] == b"\x1f\x8b"  # gzip, whatever the name says
            yield gzip.GzipFile(fileobj=raw) if packed else raw
    except MedSegDiffError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file.") from None
    except (OSError, EOFError, zlib.error, MemoryError, OverflowError) as error:
        raise DataError(
            f"{path}: can't be read to its end ({_reason(error)}). It is cut off or damaged: copy it again."
        ) from error
    except Exception as error:  # of a damaged header, nibabel makes errors of many kinds
        raise DataError(f"{path}: not a valid NIfTI file ({_reason(error)}). Export it again.") from error


def _reason(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _format(file: BufferedIOBase, path: Path) -> type[Nifti1Image]:
    start = file.read(4)
    file.seek(0)
    lengths = [int.from_bytes(start, "little"), int.from_bytes(start, "big")]
    for length, kind in FORMATS.items():
        if length in lengths:
            return kind
    raise DataError(
        f"{path}: not a NIfTI file: its header claims a length (sizeof_hdr) of {lengths[0]} bytes; "
        "allowed are 348 (NIfTI-1) and 540 (NIfTI-2). Export it again."
    )


def _axes(shape: tuple[int, ...], path: Path) -> tuple[int, ...]:
    """Tell space from channels."""
    if min(shape) < 1:
        raise DataError(f"{path}: has 0 slices along axis {int(np.argmin(shape)) + 1} of {shape}. Export it again.")
    space, channels = (*shape, 1, 1)[:3], [n for n in shape[3:] if n > 1]
    if len(shape) < 2 or len(channels) > 1:
        raise DataError(
            f"{path}: has {len(shape)} axes, of lengths {shape}; allowed are two or three of space and one of "
            "channels. Save each point of time as a file of its own."
        )
    return (*space, *channels, 1)[:4]


def _check_voxels(volume: Nifti1Image, path: Path) -> None:
    if (offset := cast(ArrayProxy, volume.dataobj).offset) < volume.header.sizeof_hdr:
        raise DataError(
            f"{path}: the voxels begin inside the header (vox_offset {offset}), as in a pair of .hdr and .img. "
            "Save both as one .nii file."
        )
    if (dtype := volume.get_data_dtype()).kind not in "iuf":
        raise DataError(
            f"{path}: the voxels are of type {dtype}; allowed are real numbers. Save channels along a fourth axis."
        )


def _check_room(volume: Nifti1Image, file: BufferedIOBase) -> None:
    """Refuse a header that tells of more than there can be, before there is room made for it."""
    told = math.prod(volume.shape) * volume.get_data_dtype().itemsize
    size = os.fstat(file.fileno()).st_size
    if told > size * (MOST_PACKED if isinstance(file, gzip.GzipFile) else 1):
        raise EOFError(f"its header tells of {told} bytes of voxels, the file has {size}")


def _rounded(values: Shaped[np.ndarray, "i j k"], path: Path, *, slope: float) -> Shaped[np.ndarray, "i j k"]:
    tolerance = max(LABEL_TOLERANCE, slope / 2 * (1 + LABEL_TOLERANCE)) if slope < FINE_SLOPE else LABEL_TOLERANCE
    if values.dtype.kind != "f":
        return values
    with np.errstate(invalid="ignore"):  # infinity less infinity
        wrong = ~(np.abs(values - np.rint(values)) <= tolerance)  # NaN is wrong too
    if wrong.any():
        raise DataError(
            f"{path}: {int(wrong.sum())} of {wrong.size} labels are not whole numbers ({values[wrong][0]:g}, say); "
            "allowed are class indices from 0 on. Resample labels by the nearest neighbour."
        )
    return np.rint(values)


def _smallest(labels: Shaped[np.ndarray, "i j k"], path: Path, *dtypes: type[np.integer[Any]]) -> type[np.integer[Any]]:
    """Pick the first type that holds all labels."""
    low, high = int(labels.min(initial=0)), int(labels.max(initial=0))
    for dtype in dtypes:
        if low >= 0 and high <= np.iinfo(dtype).max:
            return dtype
    raise DataError(
        f"{path}: labels go from {low} to {high}; allowed are 0 … {np.iinfo(dtypes[-1]).max}. "
        "Number the classes from 0, the background."
    )


def _write(path: Path, voxels: Shaped[np.ndarray, "i j k *c"], geometry: Geometry) -> None:
    check_volume_name(path)
    if voxels.shape[:3] != geometry.shape:
        raise GeometryError(
            f"{path}: the voxels are {voxels.shape[:3]}, their geometry is {geometry.shape}. Restore the grid first."
        )
    header = header_for(geometry, voxels.shape, voxels.dtype)  # it has the affine, exactly: nibabel is given none
    kind: Any = Nifti2Image if isinstance(header, Nifti2Header) else Nifti1Image
    with atomic_path(path) as part, _packed(part) as file:
        kind(voxels, None, header).to_stream(file)


@contextmanager
def _packed(path: Path) -> Iterator[BufferedIOBase]:
    """Open a file for writing, through gzip if its name says so, without name and time: equal voxels, equal bytes."""
    with path.open("wb") as raw:
        if path.suffix.lower() != ".gz":
            yield raw
            return
        with gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=raw, mtime=0) as file:
            yield file
