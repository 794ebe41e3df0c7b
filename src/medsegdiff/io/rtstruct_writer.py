"""RTSTRUCT: masks of a series as contours, for systems that plan radiotherapy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8

from medsegdiff.errors import ShapeError
from medsegdiff.io.atomic import atomic_path
from medsegdiff.io.contours import Ring, keyhole, outlines
from medsegdiff.io.dicom import DicomHeader, dicom_grid
from medsegdiff.io.dicom_codes import read_code
from medsegdiff.io.dicom_derived import UNICODE, check_labels, encoding, identity, sources
from medsegdiff.io.dicom_file import Dataset, dicom_library
from medsegdiff.io.dicom_grid import RAS_FROM_LPS
from medsegdiff.types import Geometry

Holes = Literal["keyhole", "xor"]
"""One contour with cuts of no width to the holes, which every reader understands; or a contour for each hole, of the
type CLOSEDPLANAR_XOR, which newer ones do."""
KINDS: dict[Holes, str] = {"keyhole": "CLOSED_PLANAR", "xor": "CLOSEDPLANAR_XOR"}
"""DICOM's words for them; all contours of a structure have one."""
Colour = tuple[int, int, int]
FINE = 4
"""Decimals of a pixel that contours are written with, about."""


def write_rtstruct(
    path: Path,
    masks: Iterable[UInt8[np.ndarray, "i j k"]],
    *,
    geometry: Geometry,
    labels: Sequence[str],
    colours: Sequence[Colour],
    codes: Mapping[str, str] | None = None,
    holes: Holes = "keyhole",
) -> None:
    """Write the structures of a volume as contours that refer to its slices, one structure after the other.

    Contours run half-way between voxels: whoever fills them by the centres of voxels has the masks again.
    """
    affine, header = dicom_grid(geometry)
    check_labels(labels)
    with encoding("RTSTRUCT"):
        dataset = _begun(header, geometry)
    decimals = FINE - 1 - math.floor(math.log10(min(geometry.spacing[:2])))
    for number, (mask, label, colour) in enumerate(zip(masks, labels, colours, strict=True), start=1):
        if mask.shape != geometry.shape:
            raise ShapeError(f"The mask of {label} has the shape {mask.shape}; the series has {geometry.shape}.")
        drawn = _item(ROIDisplayColor=list(colour), ReferencedROINumber=number)
        if contours := _contours(mask, header, RAS_FROM_LPS @ affine, holes=holes, decimals=max(decimals, 1)):
            drawn.ContourSequence = contours
        dataset.ROIContourSequence.append(drawn)
        dataset.StructureSetROISequence.append(
            _item(
                ROINumber=number,
                ReferencedFrameOfReferenceUID=header.frame_of_reference,
                ROIName=label,
                ROIGenerationAlgorithm="AUTOMATIC",
            )
        )
        dataset.RTROIObservationsSequence.append(_observed(number, label, codes or {}))
    with atomic_path(path) as part:
        dataset.save_as(part, enforce_file_format=True)


def _begun(header: DicomHeader, geometry: Geometry) -> Dataset:
    """Make an object without structures."""
    uids = dicom_library("pydicom.uid")
    source, now = sources(header, geometry)[0], datetime.now()
    dataset = dicom_library("highdicom.base").SOPClass(
        study_instance_uid=source.StudyInstanceUID,
        sop_class_uid=uids.RTStructureSetStorage,
        modality="RTSTRUCT",
        transfer_syntax_uid=uids.ImplicitVRLittleEndian,  # explicit ones have no room for contours of many points
        specific_character_set=UNICODE,
        **identity("RTSTRUCT", "structures"),
    )
    dataset.copy_patient_and_study_information(source)
    dataset.SpecificCharacterSet = UNICODE
    dataset.OperatorsName = None
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = header.frame_of_reference, None
    dataset.StructureSetLabel, dataset.StructureSetName = "medsegdiff", "medsegdiff structures"
    dataset.StructureSetDate, dataset.StructureSetTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    dataset.ApprovalStatus = "UNAPPROVED"
    images = [
        _item(ReferencedSOPClassUID=of.SOPClassUID, ReferencedSOPInstanceUID=of.SOPInstanceUID) for of in header.slices
    ]
    series = _item(SeriesInstanceUID=header.series, ContourImageSequence=images)
    study = _item(
        ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1",  # a study, retired but asked for
        ReferencedSOPInstanceUID=source.StudyInstanceUID,
        RTReferencedSeriesSequence=[series],
    )
    dataset.ReferencedFrameOfReferenceSequence = [
        _item(FrameOfReferenceUID=header.frame_of_reference, RTReferencedStudySequence=[study])
    ]
    dataset.StructureSetROISequence, dataset.ROIContourSequence, dataset.RTROIObservationsSequence = [], [], []
    return dataset


def _contours(
    mask: UInt8[np.ndarray, "i j k"],
    header: DicomHeader,
    lps: Float[np.ndarray, "4 4"],
    *,
    holes: Holes,
    decimals: int,
) -> list[Dataset]:
    found = []
    for k in np.flatnonzero(mask.any(axis=(0, 1))).tolist():
        for outline in outlines(np.ascontiguousarray(mask[:, :, k].T)):
            for ring in [keyhole(outline)] if holes == "keyhole" else outline.rings:
                found.append(_contour(ring, k, header, lps, kind=KINDS[holes], decimals=decimals))
    return found


def _contour(
    ring: Ring, k: int, header: DicomHeader, lps: Float[np.ndarray, "4 4"], *, kind: str, decimals: int
) -> Dataset:
    index = np.column_stack([ring, np.full(len(ring), k), np.ones(len(ring))])
    points = (index @ lps.T)[:, :3]
    return _item(
        ContourImageSequence=[header.reference(k)],
        ContourGeometricType=kind,
        NumberOfContourPoints=len(ring),
        ContourData=[f"{value:.{decimals}f}"[:16] for value in points.ravel().tolist()],
    )


def _observed(number: int, label: str, codes: Mapping[str, str]) -> Dataset:
    observed = _item(
        ObservationNumber=number,
        ReferencedROINumber=number,
        ROIObservationLabel=label[:16],
        RTROIInterpretedType="",
        ROIInterpreter=None,
    )
    if label in codes:
        code = read_code(codes[label], label)
        observed.RTROIIdentificationCodeSequence = [
            _item(CodeValue=code.value, CodingSchemeDesignator=code.scheme_designator, CodeMeaning=code.meaning)
        ]
    return observed


def _item(**elements: object) -> Dataset:
    item = dicom_library("pydicom").Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item
