"""The truth here is built by hand: a phantom laid out in the world first, stored in every order and direction after."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medsegdiff.errors import GeometryError
from medsegdiff.io.image import canonical_view, check_same_grid
from medsegdiff.io.nifti import read_labels, read_volume
from medsegdiff.types import Geometry
from tests.volumes import to_canonical, written_back

PHANTOM = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
"""Right, anterior, superior; every voxel has a value of its own."""
ORIGIN = np.array([-31.5, 12.25, 7.0])


def stored(spacing: tuple[float, float, float]) -> Iterator[tuple[np.ndarray, Geometry]]:
    """The phantom in all 48 orders and directions of its axes, each with the affine that says so."""
    for order, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        voxels = np.transpose(PHANTOM, order)[tuple(slice(None, None, sign) for sign in signs)]
        affine = np.eye(4)
        affine[:3, :3] = 0
        affine[:3, 3] = ORIGIN
        for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
            affine[world, axis] = sign * spacing[world]
            if sign < 0:
                affine[world, 3] += spacing[world] * (PHANTOM.shape[world] - 1)
        yield voxels, Geometry(voxels.shape, tuple(spacing[world] for world in order), affine)


def world_of(value: float, voxels: np.ndarray, affine: np.ndarray | None) -> np.ndarray:
    assert affine is not None
    index = np.argwhere(voxels == value)[0]
    return affine[:3, :3] @ index + affine[:3, 3]


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 0.75, 3.0), (2.0, 0.3, 0.7)])
def test_all_48_orders_and_flips_become_one_and_come_back(spacing: tuple[float, float, float]) -> None:
    seen = 0
    for voxels, native in stored(spacing):
        turned, geometry = to_canonical(voxels, native)
        assert np.array_equal(turned, PHANTOM)
        assert (geometry.shape, geometry.spacing) == (PHANTOM.shape, spacing)
        for value, index in ((0, (0, 0, 0)), (17, (1, 1, 1)), (23, (1, 2, 3))):
            world = ORIGIN + np.array(spacing) * index
            assert np.allclose(world_of(value, voxels, native.affine), world)
            assert np.allclose(world_of(value, turned, geometry.affine), world)
        back = written_back(turned, native)
        assert back.dtype == voxels.dtype
        assert np.array_equal(back, voxels)
        seen += 1
    assert seen == 48


def test_axes_before_space_stay() -> None:
    for voxels, native in stored((1.0, 2.0, 3.0)):
        members = np.stack([[voxels, voxels + 100], [voxels + 200, voxels + 300], [-voxels, voxels]])
        turned, _ = to_canonical(members, native)
        assert np.array_equal(turned[1, 0], PHANTOM + 200)
        assert turned.shape == (3, 2, *PHANTOM.shape)
        assert np.array_equal(written_back(turned, native), members)


def test_what_is_turned_is_contiguous_as_torch_takes_it() -> None:
    for voxels, native in stored((1.0, 2.0, 3.0)):
        turned, _ = to_canonical(voxels, native)
        assert turned.flags.c_contiguous


entry = st.floats(-2, 2, allow_nan=False, width=32)


@settings(max_examples=100, deadline=None)
@given(
    matrix=st.lists(entry, min_size=12, max_size=12).map(lambda x: np.array(x).reshape(3, 4)),
    shape=st.tuples(*[st.integers(1, 7)] * 3),
    channels=st.lists(st.integers(1, 3), max_size=2),
)
def test_any_oblique_or_sheared_affine_is_turned_and_back(
    matrix: np.ndarray, shape: tuple[int, int, int], channels: list[int]
) -> None:
    spacing = np.linalg.norm(matrix[:, :3], axis=0)
    if spacing.min() < 1e-3 or abs(np.linalg.det(matrix[:, :3] / spacing)) < 1e-3:
        return
    native = Geometry(shape, tuple(spacing.tolist()), np.vstack([matrix, [0, 0, 0, 1]]))
    voxels = np.arange(np.prod([*channels, *shape]), dtype=np.int32).reshape(*channels, *shape)
    turned, geometry = to_canonical(voxels, native)
    assert np.array_equal(written_back(turned, native), voxels)
    first = (0,) * len(channels)
    for value in (voxels[first].min(), voxels[first].max()):
        before = world_of(value, voxels[first], native.affine)
        assert np.allclose(world_of(value, turned[first], geometry.affine), before, atol=1e-9)
    assert geometry.affine is not None
    assert np.allclose(np.linalg.norm(geometry.affine[:3, :3], axis=0), geometry.spacing)


def test_a_small_tilt_changes_no_order() -> None:
    cosine, sine = np.cos(0.3), np.sin(0.3)
    tilt = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    for voxels, native in stored((0.5, 0.75, 3.0)):
        assert native.affine is not None
        affine = native.affine.copy()
        affine[:3] = tilt @ affine[:3]
        turned, geometry = to_canonical(voxels, Geometry(native.shape, native.spacing, affine))
        assert np.array_equal(turned, PHANTOM)
        again, same = to_canonical(turned, geometry)
        assert np.array_equal(again, PHANTOM)
        check_same_grid(geometry, same)


def test_voxels_of_another_shape_and_pictures_are_refused() -> None:
    voxels, native = list(stored((1.0, 2.0, 3.0)))[-1]
    assert voxels.shape == (4, 3, 2)
    with pytest.raises(GeometryError, match=r"The voxels are \(2, 3, 4\), their geometry is \(4, 3, 2\)"):
        to_canonical(PHANTOM, native)
    with pytest.raises(GeometryError, match="has no affine: it is that of a picture"):
        canonical_view(voxels, Geometry((4, 3, 2), (1.0, 1.0, 1.0)))


def moved(change: np.ndarray) -> Geometry:
    return Geometry((11, 21, 5), (0.5, 0.5, 4.0), np.diag([0.5, 0.5, 4.0, 1.0]) + change)


def test_one_grid_is_one_grid_up_to_rounding() -> None:
    rounded = np.full((4, 4), 1e-4)
    rounded[:, 3] = 0.02  # a tenth of a voxel is 0.05 mm
    assert check_same_grid(moved(np.zeros((4, 4))), moved(rounded)) is None
    assert check_same_grid(Geometry((5, 7), (1.0, 1.0)), Geometry((5, 7), (1.0, 1.0))) is None


@pytest.mark.parametrize(
    ("where", "by", "words"),
    [
        ((0, 3), 0.25, "scan and mask lie 0.25 mm apart"),
        ((2, 1), 0.01, "0.2 mm apart"),
        ((1, 3), 0.06, "0.06 mm"),
    ],
    ids=["shifted", "sheared", "just beyond rounding"],
)
def test_grids_apart_are_refused_with_the_distance(where: tuple[int, int], by: float, words: str) -> None:
    change = np.zeros((4, 4))
    change[where] = by
    with pytest.raises(GeometryError, match=words):
        check_same_grid(moved(change), moved(np.zeros((4, 4))), names=("scan", "mask"))


def test_other_shapes_are_refused_with_both() -> None:
    with pytest.raises(GeometryError, match=r"image and mask have different shapes: \(11, 21, 5\) and \(11, 21, 6\)"):
        check_same_grid(moved(np.zeros((4, 4))), Geometry((11, 21, 6), (0.5, 0.5, 4.0), np.eye(4)))


@pytest.mark.parametrize(
    ("folder", "image", "mask"),
    [
        ("spinalcord_nifti", "t2.nii.gz", "t2_seg-manual.nii.gz"),
        ("spinalcord_nifti", "t1w.nii.gz", "t1w_seg-manual.nii.gz"),
        ("spinalcord_nifti", "t2s.nii.gz", "t2s_gmseg-manual.nii.gz"),
        ("brats2021", "BraTS2021_00000/BraTS2021_00000_t1ce.nii.gz", "BraTS2021_00000/BraTS2021_00000_seg.nii.gz"),
    ],
)
def test_real_images_are_turned_and_back_with_their_masks(
    real_data: Callable[[str], Path], folder: str, image: str, mask: str
) -> None:
    voxels, geometry = read_volume(real_data(folder) / image)
    labels, of_labels = read_labels(real_data(folder) / mask)
    check_same_grid(geometry, of_labels)
    turned, canonical = to_canonical(voxels, geometry)
    assert canonical.affine is not None
    assert (np.diag(canonical.affine)[:3] > 0).all()
    assert np.array_equal(written_back(turned, geometry), voxels)
    turned_labels, _ = to_canonical(labels, of_labels)
    assert np.isclose(turned[0][turned_labels > 0].sum(dtype="f8"), voxels[0][labels > 0].sum(dtype="f8"))
