"""DICOM files: opening them, and the pixels of their frames."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, UInt8

from medsegdiff.errors import ConfigError, DataError, GeometryError, some
from medsegdiff.io.dicom_grid import Plane, make_plane, to_index

SUFFIXES = (".dcm", ".dicom", ".ima")
"""Endings that promise DICOM. Files without any ending may be DICOM too."""
BROKEN = Exception
"""What pydicom and its decoders raise, now or when a value is first asked for, on a file that is damaged: anything."""
NOT_THE_FILE = (MemoryError, NameError)
"""What is never the fault of a file."""
MOST_INFLATED = 1 << 31
"""Bytes that a deflated file may have unpacked: pydicom unpacks it all at once, even if its header alone is read."""
CHUNK = 1 << 20
Dataset: TypeAlias = Any
"""A ``pydicom.Dataset``; pydicom is optional, so the type is not known here."""


def dicom_library(name: str) -> Any:
    """Import a module of the extra ``dicom``."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"DICOM needs the package '{name.partition('.')[0]}', which can't be imported ({error}). "
            "Install it: pip install 'medsegdiff[dicom]'"
        ) from error


def is_dicom(path: Path) -> bool:
    """Tell by the mark behind the preamble whether a file is DICOM."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def open_dicom(path: Path, *, pixels: bool = True) -> Dataset:
    """Read one DICOM file."""
    pydicom = dicom_library("pydicom")
    if not path.is_file():
        raise DataError(f"{path}: there is no such file.")
    with damage_named(path):
        if is_dicom(path):
            with _Bounded(path, MOST_INFLATED) as file:
                return pydicom.dcmread(file, stop_before_pixels=not pixels)
    raise DataError(f"{path}: is not a DICOM file (no 'DICM' behind the preamble). Export it again.")


def inflated_size(path: Path, *, most: int) -> int:
    """Count the bytes of a deflated file, unpacked, no further than beyond ``most``; 0 of a file that is not."""
    with damage_named(path), _Bounded(path, most) as file:
        with suppress(_InflatedError):
            dicom_library("pydicom.filereader").read_partial(file, stop_when=lambda *_: True)
        return file.inflated


class _InflatedError(DataError):
    """A file unpacks to more than is allowed."""


class _Bounded(io.BufferedReader):
    """Looks at how much it is that pydicom will unpack: of a deflated file, and of no other, it reads all the rest."""

    def __init__(self, path: Path, most: int) -> None:
        super().__init__(io.FileIO(os.fspath(path)))
        self.most, self.inflated = most, 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Read some bytes, or all that are left."""
        if size is not None and size >= 0:
            return super().read(size)
        start = self.tell()
        self._count()
        if self.inflated > self.most:
            raise _InflatedError(
                f"{self.name}: is deflated, and has more than {self.most / 1e6:.4g} MB unpacked, which are allowed. "
                "Export it in another transfer syntax."
            )
        self.seek(start)
        return super().read()

    def _count(self) -> None:
        unpacking = zlib.decompressobj(-zlib.MAX_WBITS)
        packed = super().read(CHUNK)
        while packed and not unpacking.eof and self.inflated <= self.most:
            self.inflated += len(unpacking.decompress(packed, CHUNK))
            packed = unpacking.unconsumed_tail or super().read(CHUNK)


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong while reading a damaged file into one kind of error that names the file."""
    try:
        yield
    except (*NOT_THE_FILE, _InflatedError):
        raise
    except BROKEN as error:
        raise DataError(f"{path}: the file is damaged ({error}). Copy or export it again.") from error


def open_object(path: Path, modality: str) -> Dataset:
    """Read one DICOM file that must be of one kind."""
    dataset = open_dicom(path)
    found = dataset.get("Modality", "none")
    if found != modality:
        raise DataError(f"{path}: has the modality {found}; needed is {modality}. Give the file that holds the masks.")
    return dataset


OFF_GRID = 0.1
"""How far, in voxels, the corner of a frame may lie from a voxel of the series."""


def frame_planes(dataset: Dataset) -> dict[int, Plane]:
    """Read where the frames lie, which are numbered from 1."""
    frames = enumerate(dataset.PerFrameFunctionalGroupsSequence, start=1)
    return {number: _plane(dataset, frame) for number, frame in frames}


def frame_segments(dataset: Dataset) -> dict[int, int | None]:
    """Read the number of the segment of each frame; ``None`` of a label map, whose frames may hold all."""
    found: dict[int, int | None] = {}
    for number, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence, start=1):
        where = frame if "SegmentIdentificationSequence" in frame else dataset.SharedFunctionalGroupsSequence[0]
        of_one = dataset.SegmentationType != "LABELMAP"
        found[number] = int(where.SegmentIdentificationSequence[0].ReferencedSegmentNumber) if of_one else None
    return found


def frame_slices(
    planes: Mapping[int, Plane], affine: Float[np.ndarray, "4 4"], shape: tuple[int, ...], *, name: str
) -> dict[int, int]:
    """Find the slice of the series on which each frame lies."""
    found, off = {}, []
    for number, plane in planes.items():
        corners = to_index(_corners(plane), affine)
        k = int(np.round(corners[0, 2]))
        expected = [[0, 0, k], [shape[0] - 1, 0, k], [0, shape[1] - 1, k]]
        if plane.size != shape[:2] or not 0 <= k < shape[2] or np.abs(corners - expected).max() > OFF_GRID:
            index = ", ".join(f"{value:g}" for value in np.round(corners[0], 2) + 0.0)
            off.append(f"frame {number} with {plane}, whose first pixel lies at ({index})")
        found[number] = k
    if off:
        raise GeometryError(
            f"{name}: {len(off)} of {len(planes)} frames do not lie on slices of the series, which has the shape "
            f"(i, j, k) = {shape}: {some(off, most=2)}. Give the series on which it was drawn, or resample it."
        )
    return found


def frame_masks(dataset: Dataset) -> Iterator[tuple[int, int, UInt8[np.ndarray, "j i"]]]:
    """Read number, segment and mask of frame after frame, so that they are never in memory all at once."""
    half = float(dataset.MaximumFractionalValue) / 2 if dataset.SegmentationType == "FRACTIONAL" else 0.5
    for values, (number, segment) in zip(_frames(dataset), frame_segments(dataset).items(), strict=True):
        if segment is None:
            for value in np.unique(values):
                yield number, int(value), (values == value).astype(np.uint8)
        else:
            yield number, segment, (values >= half).astype(np.uint8)


def _corners(plane: Plane) -> Float[np.ndarray, "3 3"]:
    """Place the first pixel, the last of the first row and the last of the first column; LPS+, mm."""
    along = (plane.size[0] - 1) * plane.spacing[0] * plane.across
    down = (plane.size[1] - 1) * plane.spacing[1] * plane.down
    return np.stack([plane.origin, plane.origin + along, plane.origin + down])


def _plane(dataset: Dataset, frame: Dataset) -> Plane:
    """Read where a frame lies: what it does not say itself is said for all."""
    orientation, position, measures = (
        (frame if word in frame else dataset.SharedFunctionalGroupsSequence[0])[word][0]
        for word in ("PlaneOrientationSequence", "PlanePositionSequence", "PixelMeasuresSequence")
    )
    size = (int(dataset.Columns), int(dataset.Rows))
    return make_plane(size, orientation.ImageOrientationPatient, position.ImagePositionPatient, measures.PixelSpacing)


def _frames(dataset: Dataset) -> Iterable[UInt8[np.ndarray, "j i"]]:
    """Give frame after frame; all at once where single bits do not fill bytes, which pydicom 3.0 can't do singly."""
    if dataset.BitsAllocated == 1 and dataset.Rows * dataset.Columns % 8:
        return dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    return dicom_library("pydicom.pixels").iter_pixels(dataset)
