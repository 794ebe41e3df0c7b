from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from pydicom import dcmread

from medsegdiff.errors import DataError, GeometryError
from medsegdiff.io.dicom import DicomHeader, read_series
from medsegdiff.io.rtstruct import fill_even_odd, read_rtstruct
from medsegdiff.types import Geometry
from tests.dicom_makers import AXIAL, OBLIQUE, make_rtstruct, make_slices, write_dataset, write_slices


@pytest.fixture(params=[AXIAL, OBLIQUE], ids=["axial", "oblique"])
def geometry(tmp_path: Path, request: pytest.FixtureRequest) -> Geometry:
    """A series of 4 slices of 60 rows and 50 columns."""
    slices = make_slices(np.zeros((4, 60, 50)), orientation=request.param)
    return read_series(write_slices(tmp_path / "series", slices))[1]


def world(geometry: Geometry, corners: Sequence[Sequence[float]], k: float) -> np.ndarray:
    """Place corners (i, j) of slice k in the patient, LPS+."""
    assert geometry.affine is not None
    index = np.array([[*corner, k, 1] for corner in corners])
    return (index @ geometry.affine.T)[:, :3] * (-1, -1, 1)


def box(low: float, high: float) -> list[tuple[float, float]]:
    return [(low, low), (high, low), (high, high), (low, high)]


def circle(centre: tuple[float, float], radius: float, count: int = 400) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([centre[0] + radius * np.cos(angles), centre[1] + radius * np.sin(angles)], axis=1)


def read_back(tmp_path: Path, geometry: Geometry, contours: list[np.ndarray]) -> np.ndarray:
    path = write_dataset(tmp_path / "rt.dcm", make_rtstruct({"organ": contours}))
    names, masks = read_rtstruct(path, geometry)
    assert names == ("organ",)
    return masks[0]


def test_a_voxel_is_in_if_its_centre_is_inside(tmp_path: Path, geometry: Geometry) -> None:
    mask = read_back(tmp_path, geometry, [world(geometry, [(2.6, 10.4), (8.4, 10.4), (8.4, 12.6), (2.6, 12.6)], 1)])
    expected = np.zeros((50, 60, 4))
    expected[3:9, 11:13, 1] = 1
    assert np.array_equal(mask, expected)


def test_a_circle_is_what_lies_within_its_radius(tmp_path: Path, geometry: Geometry) -> None:
    mask = read_back(tmp_path, geometry, [world(geometry, circle((24.3, 30.1), 15.25).tolist(), 2)])
    i, j = np.mgrid[:50, :60]
    assert np.array_equal(mask[:, :, 2], np.hypot(i - 24.3, j - 30.1) < 15.25)
    assert mask.sum() == pytest.approx(np.pi * 15.25**2, rel=0.01)


def test_a_contour_within_another_is_a_hole(tmp_path: Path, geometry: Geometry) -> None:
    mask = read_back(tmp_path, geometry, [world(geometry, box(9.5, 29.5), 0), world(geometry, box(14.5, 19.5), 0)])
    assert mask.sum() == 20**2 - 5**2
    assert mask[17, 17, 0] == 0


def test_a_contour_that_is_there_twice_counts_once(
    tmp_path: Path, geometry: Geometry, caplog: pytest.LogCaptureFixture
) -> None:
    outer, inner = box(9.5, 29.5), box(14.5, 19.5)
    contours = [outer, inner, outer, [*inner[2:], *inner[:2]], outer[::-1]]  # from another corner, the other way round
    assert read_back(tmp_path, geometry, [world(geometry, contour, 1) for contour in contours]).sum() == 20**2 - 5**2
    assert "structure 'organ': 3 contours are there twice; counted once" in caplog.text
    caplog.clear()
    read_back(tmp_path, geometry, [world(geometry, outer, k) for k in (1, 2)])
    assert not caplog.text


def test_a_keyhole_is_a_hole(tmp_path: Path, geometry: Geometry) -> None:
    """One contour: the outer box, along a cut of no width to the inner box, around it and back."""
    outer, inner = box(9.5, 29.5), box(14.5, 19.5)
    keyhole = [*outer, outer[0], inner[0], *inner[::-1], outer[0]]
    mask = read_back(tmp_path, geometry, [world(geometry, keyhole, 0)])
    assert mask.sum() == 20**2 - 5**2
    assert mask[17, 17, 0] == 0


def test_neighbours_on_pixel_centres_share_no_pixel(tmp_path: Path, geometry: Geometry) -> None:
    """Corners at centres of pixels, moved by the rounding of the file."""
    left, right = [(5, 5), (10, 5), (10, 10), (5, 10)], [(10, 5), (20, 5), (20, 10), (10, 10)]
    both = [read_back(tmp_path, geometry, [world(geometry, part, 0)]) for part in (left, right)]
    assert [mask.sum() for mask in both] == [25, 50]
    assert (both[0] + both[1]).max() == 1


def test_polygons_are_filled_as_matplotlib_does() -> None:
    rng = np.random.default_rng(0)
    centres = np.stack(np.mgrid[:30, :20], axis=-1).reshape(-1, 2)
    for _ in range(50):
        corners = circle((rng.uniform(5, 25), rng.uniform(5, 15)), 1, 9) + rng.normal(0, 6, (9, 2))  # crosses itself
        outline = Outline(np.vstack([corners, corners[:1]]), closed=True)
        expected = outline.contains_points(centres).reshape(30, 20)
        assert np.array_equal(fill_even_odd([corners], (30, 20)), expected)


def test_a_cut_divides_pixels_without_sharing_or_losing_any() -> None:
    rng = np.random.default_rng(0)
    for _ in range(1000):  # along the cut, centres lie exactly on the edge, up to rounding
        left, top, right, bottom = rng.integers(0, 320, 4) / 10
        whole = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
        parts = [fill_even_odd([whole[corners]], (32, 32)) for corners in ([0, 1, 2], [2, 3, 0])]
        assert np.array_equal(parts[0] + parts[1], fill_even_odd([whole], (32, 32)))


def test_what_lies_beyond_the_picture_is_cut_off() -> None:
    assert fill_even_odd([np.array([(-5.0, -5.0), (40, -5), (40, 3.5), (-5, 3.5)])], (6, 8)).sum() == 6 * 4
    assert not fill_even_odd([np.array(box(20.0, 30.0))], (6, 8)).any()
    assert not fill_even_odd([], (6, 8)).any()


def test_contours_between_slices_go_to_the_nearest(tmp_path: Path, geometry: Geometry) -> None:
    contours = [world(geometry, box(9.5, 19.5), k) for k in (-0.45, 1.4, 3.45)]
    assert read_back(tmp_path, geometry, contours).sum(axis=(0, 1)).tolist() == [100, 100, 0, 100]


def test_contours_halfway_between_slices_fill_a_slice_each(tmp_path: Path, geometry: Geometry) -> None:
    contours = [world(geometry, box(9.5, 19.5), k + 0.5) for k in range(3)]
    assert read_back(tmp_path, geometry, contours).sum(axis=(0, 1)).tolist() == [0, 100, 100, 100]
    contours = [world(geometry, box(9.5, 19.5), k - 0.5) for k in range(4)]
    assert read_back(tmp_path, geometry, contours).sum(axis=(0, 1)).tolist() == [100, 100, 100, 100]


def test_of_planes_that_meet_in_a_slice_the_nearest_counts(tmp_path: Path, geometry: Geometry) -> None:
    contours = [world(geometry, box(9.5, 9.5 + size), k) for size, k in ((5, 1.7), (10, 2.1), (20, 2.4))]
    assert read_back(tmp_path, geometry, contours).sum(axis=(0, 1)).tolist() == [0, 0, 100, 0]


def test_structures_may_overlap_and_points_have_no_area(tmp_path: Path, geometry: Geometry) -> None:
    parts = {"a": [world(geometry, box(9.5, 19.5), 1)], "b": [world(geometry, box(14.5, 19.5), 1)], "empty": []}
    names, masks = read_rtstruct(write_dataset(tmp_path / "rt.dcm", make_rtstruct(parts)), geometry)
    assert names == ("a", "b", "empty")
    assert masks.sum(axis=(1, 2, 3)).tolist() == [100, 25, 0]
    assert (masks[0] & masks[1]).sum() == 25
    lines = make_rtstruct({"a": parts["a"]}, kind="OPEN_PLANAR")
    assert not read_rtstruct(write_dataset(tmp_path / "lines.dcm", lines), geometry)[1].any()


@pytest.mark.parametrize("k", [-0.55, 3.55, 10])
def test_contours_beyond_the_series_are_refused(tmp_path: Path, geometry: Geometry, k: float) -> None:
    contours = [world(geometry, box(9.5, 19.5), depth) for depth in (1, k)]
    with pytest.raises(
        GeometryError, match=rf"structure 'organ': 1 of 2 contours lie outside .* slice {k:.2f}; .*0 … 3"
    ):
        read_back(tmp_path, geometry, contours)


def test_contours_that_are_not_parallel_to_the_slices_are_refused(tmp_path: Path, geometry: Geometry) -> None:
    tilted = np.vstack([world(geometry, box(9, 19)[:2], 1), world(geometry, box(9, 19)[2:], 2)])
    with pytest.raises(GeometryError, match="'organ': 1 contours are not parallel to the slices but rise by 1 slices"):
        read_back(tmp_path, geometry, [tilted])


def test_structures_of_another_frame_of_reference_are_refused(tmp_path: Path, geometry: Geometry) -> None:
    dataset = make_rtstruct({"organ": [world(geometry, box(9, 19), 1)]}, frame="1.2.77")
    with pytest.raises(
        GeometryError, match=r"'organ': lies in the frame of reference 1\.2\.77; the series has 1\.2\.3"
    ):
        read_rtstruct(write_dataset(tmp_path / "rt.dcm", dataset), geometry)


def test_an_invented_frame_of_reference_of_the_named_series_is_accepted(tmp_path: Path, geometry: Geometry) -> None:
    assert isinstance(geometry.header, DicomHeader)
    for series, accepted in ((geometry.header.series, True), ("1.2.9", False)):
        dataset = make_rtstruct({"organ": [world(geometry, box(9.5, 19.5), 1)]}, frame="1.2.77", series=series)
        path = write_dataset(tmp_path / "rt.dcm", dataset)
        if accepted:
            assert read_rtstruct(path, geometry)[1].sum() == 100
        else:
            with pytest.raises(GeometryError, match="frame of reference"):
                read_rtstruct(path, geometry)
    other = make_rtstruct({}, series=geometry.header.series)  # a frame of reference that no structure has
    dataset.ReferencedFrameOfReferenceSequence.extend(other.ReferencedFrameOfReferenceSequence)
    with pytest.raises(GeometryError, match="frame of reference"):
        read_rtstruct(write_dataset(tmp_path / "rt.dcm", dataset), geometry)


def test_files_that_are_no_structures_are_refused(tmp_path: Path, geometry: Geometry) -> None:
    path = write_dataset(tmp_path / "ct.dcm", make_slices(np.zeros((1, 4, 4)))[0])
    with pytest.raises(DataError, match=r"ct\.dcm: has the modality CT; needed is RTSTRUCT"):
        read_rtstruct(path, geometry)
    dataset = make_rtstruct({"organ": [world(geometry, box(9, 19), 1)]})
    dataset.ROIContourSequence[0].ContourSequence[0].ContourData = ["1", "2", "3", "4"]
    with pytest.raises(DataError, match=r"rt\.dcm: the file is damaged"):
        read_rtstruct(write_dataset(tmp_path / "rt.dcm", dataset), geometry)


def test_the_real_structures_have_the_area_of_their_contours(real_data: Callable[[str], Path]) -> None:
    folder = real_data("dicom") / "rtutils_ct_rtstruct"
    _, geometry = read_series(folder)
    names, masks = read_rtstruct(folder / "rt.dcm", geometry)
    assert names == ("ROI-1",)
    drawn = dcmread(folder / "rt.dcm").ROIContourSequence[0].ContourSequence
    corners = [np.array(contour.ContourData, np.float64).reshape(-1, 3)[:, :2] for contour in drawn]
    outer, inner = sorted((shoelace(polygon) for polygon in corners), reverse=True)
    voxel = geometry.spacing[0] * geometry.spacing[1]
    assert masks.sum() * voxel == pytest.approx(outer - inner, rel=0.03)
    assert masks.any(axis=(0, 1, 2)).sum() == 1


def shoelace(corners: np.ndarray) -> float:
    """Area of a polygon."""
    x, y = corners.T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)
