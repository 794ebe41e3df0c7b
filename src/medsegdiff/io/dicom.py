"""DICOM series: a folder of slices in. Masks that refer to a series are in `dicom_seg` and `rtstruct`."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from medsegdiff.errors import DataError, GeometryError, some
from medsegdiff.io.dicom_file import (
    BROKEN,
    NOT_THE_FILE,
    SUFFIXES,
    Dataset,
    damage_named,
    dicom_library,
    is_dicom,
    open_dicom,
)
from medsegdiff.io.dicom_grid import Plane, make_plane, sort_planes, step_between
from medsegdiff.io.dicom_pixels import read_values
from medsegdiff.types import Geometry

log = logging.getLogger(__name__)

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7."
"""Class of screenshots and dose reports; some programs write slices so, with a position."""
NO_SLICES = tuple(f"1.2.840.10008.5.1.4.1.1.{kind}." for kind in ("66", "481", "30"))
"""Classes with rows and columns that are not images of the patient: segmentations, RT objects, parametric maps."""
ASKED = (
    "SOPClassUID", "SeriesInstanceUID", "SeriesDescription", "FrameOfReferenceUID", "Modality", "Rows", "Columns",
    "ImagePositionPatient", "SpacingBetweenSlices", "SliceThickness", "PatientID",
)  # fmt: skip
"""What is asked of every header, outside of what `_plane` reads."""


@dataclass(frozen=True)
class DicomHeader:
    """What a volume remembers of its series, for masks that refer to it."""

    slices: tuple[Dataset, ...]
    """The datasets in slice order, without pixels; one of a series that is a single file."""
    frames: tuple[int, ...] = ()
    """Of such a file, the number of each slice's frame, from 1; empty where each slice has a file of its own."""

    @property
    def frame_of_reference(self) -> str:
        """Name of the coordinate system, unique in the world; where it was taken out, one made of the series' name."""
        return self._named_frame or str(dicom_library("pydicom.uid").generate_uid(entropy_srcs=[self.series]))

    @property
    def _named_frame(self) -> str:
        return str(self.slices[0].get("FrameOfReferenceUID") or "")

    @property
    def modality(self) -> str:
        """What made the images: ``CT``, ``MR``, ``PT`` …; empty where they do not say."""
        return str(self.slices[0].get("Modality") or "")

    @property
    def patient(self) -> str:
        """Number or name by which a hospital knows the patient; empty where it was taken out."""
        return str(self.slices[0].get("PatientID") or "").strip()

    @property
    def series(self) -> str:
        """Name of the series, unique in the world."""
        return str(self.slices[0].get("SeriesInstanceUID", "none"))

    def reference(self, k: int) -> Dataset:
        """Refer to a slice."""
        of, item = self.slices[0 if self.frames else k], dicom_library("pydicom").Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = of.SOPClassUID, of.SOPInstanceUID
        if self.frames:
            item.ReferencedFrameNumber = self.frames[k]
        return item

    def check_frame_of_reference(self, found: str, name: str) -> None:
        """Refuse masks that were drawn in another coordinate system."""
        nameless = not self._named_frame and found in ("", "none")
        if found != self.frame_of_reference and not nameless:
            raise GeometryError(
                f"{name}: lies in the frame of reference {found}; the series has {self._named_frame or 'none'}. "
                "Give the series on which it was drawn, or register and resample one to the other."
            )


def read_series(folder: Path) -> tuple[Float[np.ndarray, "1 i j k"], Geometry]:
    """Read the slices of one DICOM series as a volume, sorted by where they lie, whatever their names.

    Axis i runs along a row (it is the column index), j down a column (the row index), k from slice to slice along
    the normal of ImageOrientationPatient: the axes that NIfTI converters give. Values are in the units of the
    modality (rescale slope and intercept, or the look-up table, of each slice), HU for CT; other than these are high
    where they are shown bright, and padding is as low as the lowest of the rest. Segmentations, RT objects, reports,
    directories and files that are not DICOM are set aside.
    """
    names, geometry = _sorted(folder)
    return read_values(folder, names, geometry.shape[:2]), geometry


def read_series_geometry(folder: Path) -> Geometry:
    """Find out where a series lies, from the headers of its slices."""
    return _sorted(folder)[1]


def _sorted(folder: Path) -> tuple[list[str], Geometry]:
    """Sort the slices of a series by where they lie."""
    headers = _slices_in(folder)
    _check_one_series(folder, headers)
    planes = _planes(folder, headers)
    try:
        names = sort_planes(planes)
    except DataError as error:
        raise DataError(f"{folder}: {error}") from None
    ordered = [planes[name] for name in names]
    with damage_named(folder / names[0]):
        thickness = _thickness(headers[names[0]])
    step = step_between(ordered, thickness)
    geometry = Geometry(
        shape=(*ordered[0].size, len(names)),
        spacing=(*ordered[0].spacing, round(float(np.linalg.norm(step)), 6)),
        affine=ordered[0].affine(step),
        header=DicomHeader(tuple(headers[name] for name in names)),
    )
    return names, geometry


def dicom_grid(geometry: Geometry) -> tuple[Float[np.ndarray, "4 4"], DicomHeader]:
    """Ask a geometry for its world matrix and its series."""
    if geometry.affine is None or not isinstance(geometry.header, DicomHeader):
        raise GeometryError(
            "The geometry does not come from a DICOM series, to which DICOM masks must refer. "
            "Read the image with read_series; keep masks of other images in NIfTI or PNG."
        )
    return geometry.affine, geometry.header


def _slices_in(folder: Path) -> dict[str, Dataset]:
    """Read the headers of all slices, by file name."""
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder. Give the folder that holds the slices of one series.")
    headers: dict[str, Dataset] = {}
    damaged, aside = [], []
    for path in sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")):
        try:
            header = _header(path)
        except DataError as error:
            damaged.append(str(error))
            continue
        if header is None:
            aside.append(path.name)
        else:
            headers[path.name] = header
    if damaged:
        raise DataError(f"{folder}: {len(damaged)} files can't be read: {some(damaged)}")
    if not headers:
        raise DataError(
            f"{folder}: holds no DICOM slices; set aside: {some(aside) or 'nothing'}. "
            "Give the folder that holds the slices of one series; sub-folders are not searched."
        )
    if aside:
        log.info("%s: not slices, set aside: %s", folder, some(aside))
    return headers


def _header(path: Path) -> Dataset | None:
    """Read the header of a slice; ``None`` for a file that is no slice and does not promise to be one."""
    promised = path.suffix.lower() in SUFFIXES or path.stat().st_size == 0
    if not promised and not is_dicom(path):
        return None
    header = open_dicom(path, pixels=False)
    with damage_named(path):
        for word in ASKED:  # pydicom reads a value when it is asked for
            header.get(word)
        kind = f"{header.get('SOPClassUID') or header.file_meta.get('MediaStorageSOPClassUID', '')}."  # DICOMDIR
    placeless = "ImagePositionPatient" not in header
    if "Rows" not in header and _is_image_class(kind[:-1]):
        raise DataError(f"{path}: the header ends before it says how many rows there are. Copy or export it again.")
    if "Rows" not in header or kind.startswith(NO_SLICES) or (placeless and kind.startswith(SECONDARY_CAPTURE)):
        return None
    return header


def _is_image_class(kind: str) -> bool:
    """Tell whether a class of objects has pixels; without a class, the file is cut off or no object at all."""
    return not kind or "Image Storage" in dicom_library("pydicom.uid").UID(kind).name


def _check_one_series(folder: Path, headers: dict[str, Dataset]) -> None:
    series = Counter(
        (str(header.get("SeriesInstanceUID", "none")), str(header.get("SeriesDescription", "no description")))
        for header in headers.values()
    )
    if len({uid for uid, _ in series}) > 1:
        found = [f"{uid} ({text}): {count} slices" for (uid, text), count in series.items()]
        raise DataError(
            f"{folder}: holds {len(series)} series: {some(found)}. Allowed is one; give each a folder of its own."
        )


def _planes(folder: Path, headers: dict[str, Dataset]) -> dict[str, Plane]:
    planes, refused = {}, []
    for name, header in headers.items():
        try:
            planes[name] = _plane(header)
        except NOT_THE_FILE:
            raise
        except BROKEN as error:
            refused.append(f"{name} ({error})")
    if refused:
        raise DataError(
            f"{folder}: {len(refused)} of {len(headers)} files are not slices of a volume: {some(refused)} "
            "Needed is one grey picture a file, with position, orientation and pixel spacing."
        )
    return planes


def _plane(header: Dataset) -> Plane:
    """Read where a slice lies, and refuse what is no grey slice."""
    if int(header.get("NumberOfFrames") or 1) > 1:
        raise DataError(f"has {header.NumberOfFrames} frames; convert it to one file per slice.")
    if int(header.get("SamplesPerPixel") or 1) > 1 or header.get("PhotometricInterpretation") == "PALETTE COLOR":
        raise DataError("is in colour.")
    words = ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing")
    if missing := [word for word in words if not header.get(word)]:
        raise DataError(f"has no {', '.join(missing)}; read single pictures as PNG or TIFF.")
    size = (int(header.Columns), int(header.Rows))
    return make_plane(size, *(_numbers(header.get(word)) for word in words))


def _numbers(value: Any) -> Sequence[float]:
    """Make a sequence of a value that stands alone where there should be several."""
    return value if isinstance(value, Sequence) else (value,)


def _thickness(header: Dataset) -> float:
    return abs(float(header.get("SpacingBetweenSlices") or header.get("SliceThickness") or 1))  # NM counts backwards
