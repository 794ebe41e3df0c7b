"""DICOM-SEG: masks and probabilities of a series, as segments with names. Overlapping segments are allowed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8

from medsegdiff.errors import DataError, ShapeError
from medsegdiff.io.atomic import atomic_path
from medsegdiff.io.dicom import DicomHeader, dicom_grid
from medsegdiff.io.dicom_codes import coding_of
from medsegdiff.io.dicom_derived import algorithm, check_labels, encoding, identity, places, sources
from medsegdiff.io.dicom_file import (
    Dataset,
    damage_named,
    dicom_library,
    frame_masks,
    frame_planes,
    frame_segments,
    frame_slices,
    open_object,
)
from medsegdiff.types import Geometry

SegmentationKind = Literal["BINARY", "FRACTIONAL"]
"""Masks of 0 and 1; probabilities 0 … 1, kept in steps of 1/255."""
LONGEST_NOTE = 1024
"""Letters that DICOM allows in what is told of a segment."""


def write_segmentation(
    path: Path,
    segments: Float[np.ndarray, "s i j k"] | UInt8[np.ndarray, "s i j k"] | Bool[np.ndarray, "s i j k"],
    *,
    geometry: Geometry,
    labels: Sequence[str],
    kind: SegmentationKind = "BINARY",
    codes: Mapping[str, str] | None = None,
    notes: Mapping[str, str] | None = None,
) -> Dataset:
    """Write the segments of a volume as one DICOM-SEG file that refers to the slices it was made from, and give it.

    Each segment is coded as ``codes`` say, by label, else as tissue, for then its name alone says what it is; it names
    this package as its algorithm, and says what ``notes`` tell of it. Slices without a segment are left out, as is
    usual.
    """
    _, header = dicom_grid(geometry)
    _check_segments(segments, geometry, labels)
    described = [
        _description(number, label, codes or {}, (notes or {}).get(label, ""))
        for number, label in enumerate(labels, start=1)
    ]
    segmentation = _encode(_allowed_values(segments, kind), geometry, header, described, kind)
    with atomic_path(path) as part:
        segmentation.save_as(part)
    return segmentation


def write_picture_segmentation(
    path: Path,
    masks: UInt8[np.ndarray, "s h w"],
    *,
    source: Dataset,
    labels: Sequence[str],
    codes: Mapping[str, str] | None = None,
    notes: Mapping[str, str] | None = None,
) -> Dataset:
    """Write the segments of a single picture (CR, DX, US, OP) as DICOM-SEG that refers to it, and give it."""
    check_labels(labels)
    described = [
        _description(number, label, codes or {}, (notes or {}).get(label, ""))
        for number, label in enumerate(labels, start=1)
    ]
    geometry = Geometry(masks.shape[1:], (1.0, 1.0))
    with encoding("DICOM-SEG"):
        segmentation = dicom_library("highdicom.seg").Segmentation(
            source_images=sources(DicomHeader((source,)), geometry),
            pixel_array=np.ascontiguousarray(masks.transpose(1, 2, 0))[None],
            segmentation_type="BINARY",
            segment_descriptions=described,
            omit_empty_frames=bool(masks.any()),
            content_label="SEGMENTATION",
            **identity("SEG", "segmentation"),
        )
    segmentation.PatientOrientation = source.get("PatientOrientation")  # asked for, if it is not known
    with atomic_path(path) as part:
        segmentation.save_as(part)
    return segmentation


def read_segmentation(
    path: Path, geometry: Geometry, *, wanted: Collection[str] | None = None
) -> tuple[tuple[str, ...], UInt8[np.ndarray, "s i j k"]]:
    """Read the segments of a DICOM-SEG file, or those ``wanted`` of them, onto the grid of its series.

    Slices without a frame are empty. Of fractional segments, what is at least half is in the mask.
    """
    affine, header = dicom_grid(geometry)
    dataset = open_object(path, "SEG")
    header.check_frame_of_reference(str(dataset.get("FrameOfReferenceUID", "none")), str(path))
    with damage_named(path):
        names = {n: name for n, name in segment_names(dataset).items() if wanted is None or name in wanted}
        segments = frame_segments(dataset)
        planes = {
            number: plane for number, plane in frame_planes(dataset).items() if segments[number] in (None, *names)
        }
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
    check_labels(labels)


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
    described: Sequence[object],
    kind: SegmentationKind,
) -> Dataset:
    segmentation = dicom_library("highdicom.seg").Segmentation
    with encoding("DICOM-SEG"):
        return segmentation(
            source_images=sources(header, geometry),
            pixel_array=np.ascontiguousarray(values.transpose(3, 2, 1, 0)),  # (k, j, i, s): rows and columns
            segmentation_type=kind,
            segment_descriptions=described,
            omit_empty_frames=bool(values.any()),  # a file has at least one frame
            max_fractional_value=255,
            content_label="SEGMENTATION",
            **places(header, geometry),
            **identity("SEG", "segmentation"),
        )


def _description(number: int, label: str, codes: Mapping[str, str], note: str) -> object:
    coding = coding_of(label, codes)
    description = dicom_library("highdicom.seg").SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=coding.category,
        segmented_property_type=coding.type,
        algorithm_type="AUTOMATIC",
        algorithm_identification=dicom_library("highdicom").AlgorithmIdentificationSequence(**algorithm()),
    )
    if note:
        description.SegmentDescription = note[:LONGEST_NOTE]
    return description


def segment_names(dataset: Dataset) -> dict[int, str]:
    """Read the names of the segments by number; of a label map, without the number that means no segment."""
    names = {int(item.SegmentNumber): str(item.SegmentLabel) for item in dataset.SegmentSequence}
    if dataset.SegmentationType == "LABELMAP":
        names.pop(int(dataset.get("PixelPaddingValue", 0)), None)
    return dict(sorted(names.items()))
