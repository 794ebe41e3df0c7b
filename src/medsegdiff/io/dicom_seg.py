"""DICOM-SEG: masks and probabilities of a series, as segments with names. Overlapping segments are allowed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from copy import copy
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8

from medsegdiff.errors import DataError, ShapeError, some
from medsegdiff.io.atomic import atomic_path
from medsegdiff.io.dicom import DicomHeader, dicom_grid
from medsegdiff.io.dicom_file import (
    Dataset,
    damage_named,
    dicom_library,
    frame_masks,
    frame_planes,
    frame_slices,
    open_object,
)
from medsegdiff.types import Geometry

SegmentationKind = Literal["BINARY", "FRACTIONAL"]
"""Masks of 0 and 1; probabilities 0 … 1, kept in steps of 1/255."""
SERIES_NUMBER = 900
"""Where viewers list our series: behind the scanner's own."""
LONGEST_LABEL = 64
"""Letters that DICOM allows in the name of a segment."""
UNICODE = "ISO_IR 192"
"""DICOM's name of UTF-8: labels may have any letters."""
EXPECTED = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
"""What every image should say, if only by an empty value, and what anonymisers remove."""


def write_segmentation(
    path: Path,
    segments: Float[np.ndarray, "s i j k"] | UInt8[np.ndarray, "s i j k"] | Bool[np.ndarray, "s i j k"],
    *,
    geometry: Geometry,
    labels: Sequence[str],
    kind: SegmentationKind = "BINARY",
) -> None:
    """Write the segments of a volume as one DICOM-SEG file that refers to the slices it was made from.

    Each segment is coded as tissue, for its name alone says what it is, and names this package as its algorithm.
    Slices without a segment are left out, as is usual.
    """
    _, header = dicom_grid(geometry)
    _check_segments(segments, geometry, labels)
    segmentation = _encode(_allowed_values(segments, kind), geometry, header, labels, kind)
    with atomic_path(path) as part:
        segmentation.save_as(part)


def read_segmentation(path: Path, geometry: Geometry) -> tuple[tuple[str, ...], UInt8[np.ndarray, "s i j k"]]:
    """Read the segments of a DICOM-SEG file onto the grid of its series.

    Slices without a frame are empty. Of fractional segments, what is at least half is in the mask.
    """
    affine, header = dicom_grid(geometry)
    dataset = open_object(path, "SEG")
    header.check_frame_of_reference(str(dataset.get("FrameOfReferenceUID", "none")), str(path))
    with damage_named(path):
        names = segment_names(dataset)
        planes = frame_planes(dataset)
    slices = frame_slices(planes, affine, geometry.shape, name=str(path))
    order = {number: s for s, number in enumerate(names)}
    masks = np.zeros((len(order), *geometry.shape), np.uint8)
    with damage_named(path):
        for frame, number, mask in frame_masks(dataset):
            if number in order:
                masks[order[number], :, :, slices[frame]] |= mask.T
    return tuple(names.values()), masks


def _check_segments(segments: np.ndarray, geometry: Geometry, labels: Sequence[str]) -> None:
    if segments.shape != (len(labels), *geometry.shape) or not labels:
        raise ShapeError(
            f"The segments have the shape {segments.shape}; with {len(labels)} labels on this series it must be "
            f"{(len(labels) or 's', *geometry.shape)}. Give a mask and a label for each segment, on the native grid."
        )
    wrong = [repr(label) for label in labels if not 0 < len(label.strip()) <= LONGEST_LABEL or "\\" in label]
    if wrong:
        raise DataError(
            f"The labels {some(wrong)} can't be written; allowed are 1 … {LONGEST_LABEL} letters without backslash."
        )


def _allowed_values(segments: Shaped[np.ndarray, "s i j k"], kind: SegmentationKind) -> Shaped[np.ndarray, "s i j k"]:
    """Check the values; round probabilities to what a file keeps, so that what rounds to nothing is empty."""
    if kind == "FRACTIONAL":
        if not (segments.min() >= 0 and segments.max() <= 1):  # not: NaN compares false
            raise DataError(f"Probabilities go from {segments.min()} to {segments.max()}; allowed are 0 … 1.")
        return (np.round(segments * np.float32(255)) / np.float32(255)).astype(np.float32)
    whole = segments.dtype == np.uint8 and segments.max() <= 1  # without a copy: they are large
    if not whole and not ((segments == 0) | (segments == 1)).all():
        raise DataError(
            f"Mask values go from {segments.min()} to {segments.max()}; allowed are 0 and 1. "
            "Write probabilities with kind='FRACTIONAL'; give each class a segment of its own."
        )
    return segments.astype(np.uint8, copy=False)


def _encode(
    values: Shaped[np.ndarray, "s i j k"],
    geometry: Geometry,
    header: DicomHeader,
    labels: Sequence[str],
    kind: SegmentationKind,
) -> Dataset:
    segmentation = dicom_library("highdicom.seg").Segmentation
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*intended person name")  # anonymised patients have one word
        try:
            return segmentation(
                source_images=[_source(dataset, header.slices[0], geometry) for dataset in header.slices],
                pixel_array=np.ascontiguousarray(values.transpose(3, 2, 1, 0)),  # (k, j, i, s): rows and columns
                segmentation_type=kind,
                segment_descriptions=[_description(number, label) for number, label in enumerate(labels, start=1)],
                omit_empty_frames=bool(values.any()),  # a file has at least one frame
                max_fractional_value=255,
                **_identity(),
            )
        except Exception as error:  # elements that nobody asked for so far may be damaged
            raise DataError(
                f"The header of the series does not allow a DICOM-SEG ({error}). Repair it, or write masks as NIfTI."
            ) from error


def _source(dataset: Dataset, first: Dataset, geometry: Geometry) -> Dataset:
    """Copy a source image as highdicom wants it: planes are alike, text is Unicode, what is unknown is empty."""
    source = dicom_library("pydicom").Dataset()
    source.update({element.tag: copy(element) for element in dataset})
    for keyword in EXPECTED:
        if keyword not in source:
            setattr(source, keyword, None)
    source.SpecificCharacterSet = UNICODE
    source.SpacingBetweenSlices = geometry.spacing[2]
    source.SliceThickness = source.get("SliceThickness") or source.SpacingBetweenSlices
    source.ImageOrientationPatient, source.PixelSpacing = first.ImageOrientationPatient, first.PixelSpacing
    return source


def _description(number: int, label: str) -> object:
    highdicom, codes = dicom_library("highdicom"), dicom_library("pydicom.sr.codedict").codes
    return dicom_library("highdicom.seg").SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=codes.SCT.Tissue,
        segmented_property_type=codes.SCT.Tissue,
        algorithm_type="AUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name="medsegdiff", version=version("medsegdiff"), family=codes.cid7162.ArtificialIntelligence
        ),
    )


def _identity() -> dict[str, object]:
    """Say who makes the file, and name it uniquely."""
    uid = dicom_library("highdicom").UID
    return {
        "series_instance_uid": uid(),
        "series_number": SERIES_NUMBER,
        "sop_instance_uid": uid(),
        "instance_number": 1,
        "manufacturer": "medsegdiff",
        "manufacturer_model_name": "medsegdiff",
        "software_versions": version("medsegdiff"),
        "device_serial_number": version("medsegdiff"),
        "content_label": "SEGMENTATION",
        "series_description": "medsegdiff segmentation",
    }


def segment_names(dataset: Dataset) -> dict[int, str]:
    """Read the names of the segments by number; of a label map, without the number that means no segment."""
    names = {int(item.SegmentNumber): str(item.SegmentLabel) for item in dataset.SegmentSequence}
    if dataset.SegmentationType == "LABELMAP":
        names.pop(int(dataset.get("PixelPaddingValue", 0)), None)
    return dict(sorted(names.items()))
