"""RTSTRUCT files: read by our reader and by another program they are the masks, and dciodvfy finds nothing wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.path import Path as Outlined
from pydicom import dcmread

from medsegdiff.errors import ConfigError, DataError, GeometryError, ShapeError
from medsegdiff.io.dicom import read_series
from medsegdiff.io.rtstruct import read_rtstruct
from medsegdiff.io.rtstruct_writer import Holes, write_rtstruct
from medsegdiff.types import Geometry
from tests.dicom_makers import AXIAL, OBLIQUE, make_slices, write_slices
from tests.verified import errors_of

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
LABELS = ("liver", "Tumör: 腫瘍", "void")


@pytest.fixture(params=[AXIAL, OBLIQUE], ids=["axial", "oblique"])
def geometry(tmp_path: Path, request: pytest.FixtureRequest) -> Geometry:
    slices = make_slices(np.zeros((4, 19, 23)), orientation=request.param)
    return read_series(write_slices(tmp_path / "series", slices))[1]


def masks() -> np.ndarray:
    """A random one, one with holes and an island in a hole, one that is empty."""
    found = np.zeros((3, 23, 19, 4), np.uint8)
    found[0] = np.random.default_rng(0).random(found.shape[1:]) < 0.5
    found[1, 2:20, 2:17, 1:3] = 1
    found[1, 5:12, 5:12, 1:3] = 0
    found[1, 7:9, 8:10, 1:3] = 1
    found[1, 14:16, 6:8, 2] = 0
    return found


@pytest.mark.parametrize("holes", ["keyhole", "xor"])
def test_masks_come_back_exactly(tmp_path: Path, geometry: Geometry, holes: Holes) -> None:
    drawn = masks()
    write_rtstruct(tmp_path / "rt.dcm", drawn, geometry=geometry, labels=LABELS, colours=COLOURS, holes=holes)
    names, found = read_rtstruct(tmp_path / "rt.dcm", geometry)
    assert names == LABELS
    assert np.array_equal(found, drawn)
    kinds = {
        of.ContourGeometricType for item in dcmread(tmp_path / "rt.dcm").ROIContourSequence for of in contours(item)
    }
    assert kinds == {"CLOSED_PLANAR" if holes == "keyhole" else "CLOSEDPLANAR_XOR"}


def test_a_reader_that_unites_contours_sees_holes(tmp_path: Path, geometry: Geometry) -> None:
    """Many programs fill each contour of a slice by itself: matplotlib does so here, at the place of each slice."""
    drawn = masks()
    write_rtstruct(tmp_path / "rt.dcm", drawn, geometry=geometry, labels=LABELS, colours=COLOURS)
    slices = {of.SOPInstanceUID: k for k, of in enumerate(geometry.header.slices)}  # type: ignore[attr-defined]
    found = np.zeros_like(drawn)
    i, j = np.mgrid[:23, :19]
    for mask, item in zip(found, dcmread(tmp_path / "rt.dcm").ROIContourSequence, strict=True):
        for contour in contours(item):
            k = slices[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
            of = geometry.header.slices[k]  # type: ignore[attr-defined]
            away = np.array(contour.ContourData, float).reshape(-1, 3) - np.array(of.ImagePositionPatient, float)
            across, down = np.array(of.ImageOrientationPatient, float).reshape(2, 3)
            assert np.abs(away @ np.cross(across, down)).max() < 1e-3
            ring = np.stack([away @ across / of.PixelSpacing[1], away @ down / of.PixelSpacing[0]], axis=1)
            closed = Outlined(np.vstack([ring, ring[:1]]), closed=True)
            mask[:, :, k] |= closed.contains_points(np.stack([i.ravel(), j.ravel()], axis=1)).reshape(23, 19)
    assert np.array_equal(found, drawn)


def contours(item: object) -> list:  # type: ignore[type-arg]
    return list(getattr(item, "ContourSequence", []))


def test_the_file_names_its_series_and_what_structures_are(tmp_path: Path, geometry: Geometry) -> None:
    codes = {"liver": "SCT:10200004"}
    write_rtstruct(tmp_path / "rt.dcm", masks(), geometry=geometry, labels=LABELS, colours=COLOURS, codes=codes)
    dataset = dcmread(tmp_path / "rt.dcm")
    source = geometry.header.slices[0]  # type: ignore[attr-defined]
    assert (dataset.PatientID, dataset.StudyInstanceUID) == (source.PatientID, source.StudyInstanceUID)
    assert dataset.ApprovalStatus == "UNAPPROVED"
    study = dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    (series,) = study.RTReferencedSeriesSequence
    assert series.SeriesInstanceUID == source.SeriesInstanceUID
    assert len(series.ContourImageSequence) == 4
    assert [list(item.ROIDisplayColor) for item in dataset.ROIContourSequence] == [list(colour) for colour in COLOURS]
    first, second, _ = dataset.RTROIObservationsSequence
    assert first.RTROIIdentificationCodeSequence[0].CodeMeaning == "Liver"
    assert "RTROIIdentificationCodeSequence" not in second


def test_dciodvfy_finds_no_errors(tmp_path: Path, geometry: Geometry) -> None:
    write_rtstruct(tmp_path / "rt.dcm", masks(), geometry=geometry, labels=("a", "b", "c"), colours=COLOURS)
    assert errors_of(tmp_path / "rt.dcm") == []


def test_a_contour_of_many_points_fits(tmp_path: Path) -> None:
    """More than 64 kB of text, which files with explicit types have no room for."""
    _, geometry = read_series(write_slices(tmp_path / "series", make_slices(np.zeros((1, 99, 99)))))
    comb = np.ones((1, 99, 99, 1), np.uint8)
    comb[0, 1::2, 1:] = 0
    comb[0, 3::8, 2::2] = 1
    write_rtstruct(tmp_path / "rt.dcm", comb, geometry=geometry, labels=("comb",), colours=COLOURS[:1])
    assert max(len(of.ContourData) for of in dcmread(tmp_path / "rt.dcm").ROIContourSequence[0].ContourSequence) > 9000
    assert np.array_equal(read_rtstruct(tmp_path / "rt.dcm", geometry)[1], comb)


def test_what_can_not_be_written_is_refused(tmp_path: Path, geometry: Geometry) -> None:
    path, colours = tmp_path / "rt.dcm", COLOURS[:1]
    one = masks()[:1]
    with pytest.raises(DataError, match="allowed are 1 … 64 letters"):
        write_rtstruct(path, one, geometry=geometry, labels=("",), colours=colours)
    with pytest.raises(ShapeError, match=r"the series has \(23, 19, 4\)"):
        write_rtstruct(path, one[..., :2], geometry=geometry, labels=("a",), colours=colours)
    with pytest.raises(GeometryError, match="does not come from a DICOM series"):
        write_rtstruct(path, one, geometry=Geometry((5, 7), (1.0, 1.0)), labels=("a",), colours=colours)
    with pytest.raises(ConfigError, match="The code of a is 'liver'; allowed is SCHEME:VALUE"):
        write_rtstruct(path, one, geometry=geometry, labels=("a",), colours=colours, codes={"a": "liver"})
    assert not path.exists()
