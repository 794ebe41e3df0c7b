"""Small DICOM files, made with pydicom alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
OBLIQUE = (0.8, 0.36, 0.48, 0.0, 0.8, -0.6)
"""Rows and columns turned about two axes, still at right angles."""
FRAME = "1.2.3.4.5"
ORIGIN = (-20.0, 30.0, 40.0)
SPACING = (0.5, 0.75)
"""From row to row, from column to column."""
STEP = 2.5


def write_dataset(path: Path, dataset: Dataset, *, kind: str = "") -> Path:
    syntax = dataset.file_meta.TransferSyntaxUID if hasattr(dataset, "file_meta") else ExplicitVRLittleEndian
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    if kind:
        dataset.file_meta.MediaStorageSOPClassUID, dataset.file_meta.MediaStorageSOPInstanceUID = kind, generate_uid()
    dataset.save_as(path, enforce_file_format=True)
    return path


def make_slices(values: np.ndarray, *, orientation: Sequence[float] = AXIAL, step: Any = None) -> list[Dataset]:
    """Make CT slices of stored values (k, rows, columns)."""
    study, series = generate_uid(), generate_uid()
    step = STEP * np.cross(orientation[:3], orientation[3:]) if step is None else np.asarray(step)
    return [
        _slice(pixels, study, series, orientation, np.asarray(ORIGIN) + k * step) for k, pixels in enumerate(values)
    ]


def write_slices(folder: Path, slices: Sequence[Dataset], *, suffix: str = ".dcm", seed: int = 0) -> Path:
    """Write slices under names that say nothing of their order."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, k in enumerate(np.random.default_rng(seed).permutation(len(slices))):
        write_dataset(folder / f"IM{number}{suffix}", slices[k])
    return folder


def make_picture(pixels: np.ndarray, *, kind: str = "1.2.840.10008.5.1.4.1.1.1.1", **elements: Any) -> Dataset:
    """Make a digital X-ray, or something of another class, of stored values (rows, columns, perhaps colours)."""
    (dataset,) = make_slices(np.zeros((1, *pixels.shape[:2])))
    for word in ("ImageOrientationPatient", "ImagePositionPatient", "FrameOfReferenceUID", "SliceThickness",
                 "RescaleSlope", "RescaleIntercept"):  # fmt: skip
        delattr(dataset, word)
    dataset.SOPClassUID, dataset.Modality, dataset.PixelRepresentation = kind, "DX", int(pixels.dtype.kind == "i")
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelData = pixels.tobytes()
    for word, value in elements.items():
        setattr(dataset, word, value)
    return dataset


def make_rtstruct(
    structures: dict[str, list[np.ndarray]], *, frame: str = FRAME, kind: str = "CLOSED_PLANAR", series: str = "1.2.8"
) -> Dataset:
    """Make structures of contours, each of points (n, 3) in LPS+, mm."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = RTStructureSetStorage, generate_uid()
    dataset.Modality = "RTSTRUCT"
    reference, study, drawn_on = Dataset(), Dataset(), Dataset()
    drawn_on.SeriesInstanceUID, study.RTReferencedSeriesSequence = series, [drawn_on]
    reference.FrameOfReferenceUID, reference.RTReferencedStudySequence = frame, [study]
    dataset.ReferencedFrameOfReferenceSequence = [reference]
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(structures.items(), start=1):
        region, drawn = Dataset(), Dataset()
        region.ROINumber, region.ROIName, region.ReferencedFrameOfReferenceUID = number, name, frame
        drawn.ReferencedROINumber, drawn.ContourSequence = number, [_contour(points, kind) for points in contours]
        dataset.StructureSetROISequence.append(region)
        dataset.ROIContourSequence.append(drawn)
    return dataset


def _slice(pixels: np.ndarray, study: str, series: str, orientation: Sequence[float], position: np.ndarray) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = study, series, FRAME
    dataset.SeriesDescription, dataset.Modality, dataset.SeriesNumber = "made", "CT", 3
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate, dataset.PatientSex = "Made^Up", "7", "", "O"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID, dataset.AccessionNumber = "20200101", "120000", "1", ""
    dataset.ReferringPhysicianName = ""
    dataset.ImageOrientationPatient = [round(value, 8) for value in orientation]
    dataset.ImagePositionPatient = [round(float(value), 8) for value in position]
    dataset.PixelSpacing, dataset.SliceThickness = list(SPACING), 2.0
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.RescaleSlope, dataset.RescaleIntercept = 2, -1024
    dataset.PixelData = pixels.astype("<i2").tobytes()
    return dataset


def _contour(points: np.ndarray, kind: str) -> Dataset:
    contour = Dataset()
    contour.ContourGeometricType, contour.NumberOfContourPoints = kind, len(points)
    contour.ContourData = [f"{value:.6f}" for value in np.ravel(points)]
    return contour
