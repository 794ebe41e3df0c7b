"""Measures of masks: balls, boxes and discs whose size is known, SimpleITK, and all pairs of voxels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import SimpleITK
from scipy.spatial.distance import pdist

from medsegdiff.io.atomic import make_room
from medsegdiff.labels import Labels
from medsegdiff.metrics.measures import Measures, measures_of
from medsegdiff.types import Geometry
from tests.volumes import oblique

BINARY = Labels()
CLASSES = Labels("exclusive", ("background", "a", "b"))
REGIONS = Labels("regions", ("disc", "cup"))


def volume(shape: tuple[int, int, int], affine: np.ndarray) -> Geometry:
    return Geometry(shape, tuple(np.linalg.norm(affine[:3, :3], axis=0).tolist()), affine)


def measured(mask: np.ndarray, geometry: Geometry | None = None) -> Measures:
    picture = Geometry(mask.shape, (1.0,) * mask.ndim)
    (found,) = measures_of(mask.astype(np.uint8), BINARY, geometry or picture).values()
    return found


def ball(shape: tuple[int, int, int], affine: np.ndarray, centre: np.ndarray, radius: float) -> np.ndarray:
    """Draw a ball in the world: the voxels whose centre is inside."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return np.linalg.norm(index @ affine[:3, :3].T + affine[:3, 3] - centre, axis=-1) < radius


@pytest.mark.parametrize("shear", [0.0, 0.3])
def test_a_ball_in_an_oblique_grid_has_the_volume_diameter_and_centre_of_a_ball(shear: float) -> None:
    affine, shape, radius = oblique((0.5, 0.8, 1.5), shear=shear), (75, 50, 26), 12.0
    centre = affine[:3, :3] @ (np.array(shape) / 2) + affine[:3, 3]
    found = measured(ball(shape, affine, centre, radius), volume(shape, affine))
    assert found.size == pytest.approx(4 / 3 * math.pi * radius**3 / 1000, rel=0.01)
    assert found.position == pytest.approx(centre, abs=0.05)
    assert 2 * radius - 1.5 < (found.diameter or 0) < 2 * radius
    assert (found.unit, found.length_unit, found.components, found.incomplete) == ("mL", "mm", 1, False)


def test_a_box_in_an_oblique_grid_is_measured_exactly() -> None:
    affine, shape = oblique((0.5, 0.8, 2.5)), (20, 15, 9)
    mask = np.zeros(shape, bool)
    mask[3:11, 2:8, 4:7] = True
    found = measured(mask, volume(shape, affine))
    assert found.voxels == 8 * 6 * 3
    assert found.size == pytest.approx(8 * 6 * 3 * 0.5 * 0.8 * 2.5 / 1000)
    assert found.diameter == pytest.approx(math.hypot(7 * 0.5, 5 * 0.8, 2 * 2.5))
    assert (found.first, found.last, found.centroid) == ((3, 2, 4), (10, 7, 6), (6.5, 4.5, 5.0))
    assert found.position == pytest.approx(affine[:3, :3] @ (6.5, 4.5, 5.0) + affine[:3, 3])


def test_a_disc_has_the_area_and_diameter_of_a_disc() -> None:
    rows, columns = np.ogrid[:120, :90]
    disc = (rows - 60.3) ** 2 + (columns - 44.6) ** 2 < 30**2
    found = measured(disc)
    assert found.size == found.voxels == pytest.approx(math.pi * 30**2, rel=0.01)
    assert (found.unit, found.length_unit, found.position) == ("px", "px", None)
    assert found.centroid == pytest.approx((60.3, 44.6), abs=0.05)
    assert 58.5 < (found.diameter or 0) < 60
    known = measured(disc, Geometry(disc.shape, (0.2, 0.2)))
    assert (known.size, known.unit) == (pytest.approx(found.size * 0.04), "mm2")
    assert (known.diameter, known.length_unit) == (pytest.approx(0.2 * (found.diameter or 0)), "mm")


def test_random_masks_are_measured_as_simpleitk_does() -> None:
    rng = np.random.default_rng(0)
    affine, to_lps = oblique((0.7, 0.9, 2.0)), np.diag([-1, -1, 1])
    for share in (0.01, 0.1, 0.5):
        mask = np.zeros((14, 12, 9), np.uint8)
        mask[2:-1, 1:-3, 1:-2] = rng.random((11, 8, 6)) < share
        image = SimpleITK.GetImageFromArray(mask.T)
        image.SetSpacing(np.linalg.norm(affine[:3, :3], axis=0).tolist())
        image.SetDirection((to_lps @ affine[:3, :3] / image.GetSpacing()).ravel().tolist())
        image.SetOrigin((to_lps @ affine[:3, 3]).tolist())
        shapes = SimpleITK.LabelShapeStatisticsImageFilter()
        shapes.ComputeFeretDiameterOn()
        shapes.Execute(image)
        components = SimpleITK.ConnectedComponentImageFilter()
        components.FullyConnectedOn()
        components.Execute(image)
        found = measured(mask, volume(mask.shape, affine))
        assert found.voxels == shapes.GetNumberOfPixels(1)
        assert found.size == pytest.approx(shapes.GetPhysicalSize(1) / 1000)
        assert found.position == pytest.approx(to_lps @ shapes.GetCentroid(1), abs=1e-3)
        assert found.components == components.GetObjectCount()
        assert (*(found.first or ()), *np.subtract(found.last, found.first) + 1) == shapes.GetBoundingBox(1)
        assert found.diameter == pytest.approx(shapes.GetFeretDiameter(1))


@pytest.mark.parametrize("shape", [(9, 8), (7, 6, 5), (1, 30, 20), (12, 1, 1), (40, 3)])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.6])
def test_the_diameter_is_the_largest_of_all_distances(shape: tuple[int, ...], share: float) -> None:
    rng = np.random.default_rng(int(100 * share))
    affine = oblique((0.4, 1.0, 3.0), shear=0.2)
    for _ in range(5):
        mask = rng.random(shape) < share
        mask.flat[rng.integers(mask.size, size=2)] = True
        if mask.ndim == 3:
            geometry = volume(shape, affine)
            points = np.argwhere(mask) @ affine[:3, :3].T
        else:
            geometry, points = Geometry(shape, (0.5, 20.0)), np.argwhere(mask) * (0.5, 20.0)
        expected = pdist(points).max() if len(points) > 1 else 0
        assert measured(mask, geometry).diameter == pytest.approx(expected)


@pytest.mark.parametrize(
    "voxels",
    [
        [(2, 2, 2)],
        [(1, 1, 1), (4, 4, 4)],
        [(n, n, n) for n in range(5)],
        [(n, 4 - n, m) for n in range(5) for m in range(5)],
        [(n, m, 2) for n in range(3) for m in range(4)],
    ],
    ids=["point", "two points", "diagonal line", "oblique plane", "slice"],
)
def test_points_lines_and_planes_have_a_diameter_too(voxels: list[tuple[int, int, int]]) -> None:
    mask, affine = np.zeros((6, 6, 6), bool), oblique()
    mask[tuple(np.transpose(voxels))] = True
    points = np.array(voxels) @ affine[:3, :3].T
    expected = pdist(points).max() if len(points) > 1 else 0
    assert measured(mask, volume(mask.shape, affine)).diameter == pytest.approx(expected)


def test_two_components_are_counted_and_voxels_that_share_a_corner_are_one() -> None:
    mask = np.zeros((9, 9), bool)
    mask[1:3, 1:3] = mask[3:5, 3:5] = True
    assert measured(mask).components == 1
    mask[6:8, 1:3] = True
    found = measured(mask)
    assert found.components == 2
    assert found.diameter == pytest.approx(math.hypot(6, 1))  # of both together
    assert (found.first, found.last) == ((1, 1), (7, 4))


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("end", [0, -1])
def test_what_reaches_the_border_is_incomplete(axis: int, end: int) -> None:
    mask = np.zeros((7, 8, 9), bool)
    mask[2:5, 2:5, 2:5] = True
    assert not measured(mask, volume(mask.shape, oblique())).incomplete
    np.moveaxis(mask, axis, 0)[end, 4, 4] = True
    assert measured(mask, volume(mask.shape, oblique())).incomplete


def test_a_volume_of_one_slice_is_incomplete_where_a_picture_would_be() -> None:
    mask = np.zeros((7, 8, 1), bool)
    mask[2:5, 2:5] = True
    assert not measured(mask, volume(mask.shape, oblique())).incomplete
    mask[0, 3] = True
    assert measured(mask, volume(mask.shape, oblique())).incomplete


@pytest.mark.parametrize("shape", [(6, 7), (6, 7, 8)])
def test_an_empty_mask_has_no_size_and_no_place(shape: tuple[int, ...]) -> None:
    geometry = volume(shape, oblique()) if len(shape) == 3 else None
    found = measured(np.zeros(shape), geometry)
    assert (found.voxels, found.size, found.components, found.incomplete) == (0, 0, 0, False)
    assert (found.diameter, found.centroid, found.position, found.first, found.last) == (None,) * 5


@pytest.mark.parametrize("labels", [CLASSES, REGIONS])
def test_each_structure_of_a_map_in_a_file_is_measured_as_its_mask_alone(labels: Labels) -> None:
    lead = (2,) if labels.task == "regions" else ()
    shape, rng = (9, 7, 8), np.random.default_rng(0)
    room = make_room((*lead, *shape), np.dtype(np.uint8), outer=len(lead) + 2)  # as axial slices lie
    room[..., 2:6, 1:5, 3:7] = rng.integers(0, 2 if lead else 3, (*lead, 4, 4, 4))
    geometry = volume(shape, oblique())
    found = measures_of(room, labels, geometry)
    alone = [measured(labels.mask(np.array(room), index), geometry) for index in range(2)]
    assert list(found.values()) == alone
    assert list(found) == list(labels.structures)
    room[...] = 0
    assert measures_of(room, labels, geometry) == dict.fromkeys(found, Measures(0, 0.0, "mL", length_unit="mm"))
