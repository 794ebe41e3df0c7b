"""What all DICOM objects that are made of a series have in common: who made them, of what, and for which patient."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from importlib.metadata import version
from typing import Any

import numpy as np

from medsegdiff.errors import DataError, some
from medsegdiff.io.dicom import DicomHeader
from medsegdiff.io.dicom_file import Dataset, dicom_library
from medsegdiff.types import Geometry

SERIES_NUMBER = {"SEG": 900, "RTSTRUCT": 901, "SR": 902, "PM": 903}
"""Where viewers list our series: behind the scanner's own."""
LONGEST_LABEL = 64
"""Letters that DICOM allows in the name of a structure."""
UNICODE = "ISO_IR 192"
"""DICOM's name of UTF-8: labels may have any letters."""
EXPECTED = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
"""What every image should say, if only by an empty value, and what anonymisers remove."""
SEXES = ("M", "F", "O")
"""That DICOM knows."""


def check_labels(labels: Sequence[str]) -> None:
    """Refuse names that no object can hold."""
    wrong = [repr(label) for label in labels if not 0 < len(label.strip()) <= LONGEST_LABEL or "\\" in label]
    if wrong:
        raise DataError(
            f"The labels {some(wrong)} can't be written; allowed are 1 … {LONGEST_LABEL} letters without backslash."
        )


def identity(modality: str, description: str) -> dict[str, Any]:
    """Say who makes an object, and name it uniquely."""
    uid = dicom_library("highdicom").UID
    return {
        "series_instance_uid": uid(),
        "series_number": SERIES_NUMBER[modality],
        "sop_instance_uid": uid(),
        "instance_number": 1,
        "manufacturer": "medsegdiff",
        "manufacturer_model_name": "medsegdiff",
        "software_versions": version("medsegdiff"),
        "device_serial_number": version("medsegdiff"),
        "series_description": f"medsegdiff {description}",
    }


def sources(header: DicomHeader, geometry: Geometry) -> list[Dataset]:
    """Copy the datasets of a series as highdicom wants them."""
    return [_source(dataset, header, geometry) for dataset in header.slices]


def algorithm() -> dict[str, Any]:
    """Say which algorithm segments."""
    family = dicom_library("pydicom.sr.codedict").codes.cid7162.ArtificialIntelligence
    return {"name": "medsegdiff", "version": version("medsegdiff"), "family": family}


@contextmanager
def encoding(what: str) -> Iterator[None]:
    """Turn what goes wrong with a header into words."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*intended person name")  # anonymised patients have one word
        try:
            yield
        except Exception as error:  # elements that nobody asked for so far may be damaged
            raise DataError(
                f"The header of the series does not allow a {what} ({error}). Repair it, or have masks written as "
                "NIfTI and no DICOM: --write masks,probability,uncertainty."
            ) from error


def places(header: DicomHeader, geometry: Geometry) -> dict[str, Any]:
    """Say where frames lie, of a series in one file; files of slices say it themselves."""
    if not header.frames:
        return {}
    highdicom, affine = dicom_library("highdicom"), geometry.affine
    assert affine is not None
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    across, down = (lps[:3, axis] / np.linalg.norm(lps[:3, axis]) for axis in (0, 1))
    columns, rows, step = geometry.spacing
    measures = highdicom.PixelMeasuresSequence([rows, columns], slice_thickness=step, spacing_between_slices=step)
    return {
        "pixel_measures": measures,
        "plane_orientation": highdicom.PlaneOrientationSequence("PATIENT", [*across, *down]),
        "plane_positions": [
            highdicom.PlanePositionSequence("PATIENT", (lps @ [0, 0, k, 1])[:3]) for k in range(geometry.shape[2])
        ],
    }


def _source(dataset: Dataset, header: DicomHeader, geometry: Geometry) -> Dataset:
    """Copy a source image: planes are alike, text is Unicode, what is unknown or no such value is empty."""
    source = dicom_library("pydicom").Dataset()
    source.update({element.tag: copy(element) for element in dataset})
    for keyword in EXPECTED:
        if keyword not in source or not _understood(keyword, str(source[keyword].value)):
            setattr(source, keyword, None)
    if geometry.affine is not None:  # a single picture lies nowhere
        source.FrameOfReferenceUID = header.frame_of_reference
    source.SpecificCharacterSet = UNICODE
    if "ImageOrientationPatient" in dataset:  # not a file of many frames, and no single picture
        source.SpacingBetweenSlices = geometry.spacing[2]
        source.SliceThickness = source.get("SliceThickness") or source.SpacingBetweenSlices
        first = header.slices[0]
        source.ImageOrientationPatient, source.PixelSpacing = first.ImageOrientationPatient, first.PixelSpacing
    return source


def _understood(keyword: str, value: str) -> bool:
    """Tell whether a value that is there is a date, a time or a sex, where it should be one."""
    representations = dicom_library("pydicom.valuerep")
    kinds = {"PatientBirthDate": "DA", "StudyDate": "DA", "StudyTime": "TM"}
    try:
        if keyword in kinds:
            getattr(representations, kinds[keyword])(value)
    except ValueError:
        return False
    return keyword != "PatientSex" or not value or value in SEXES
