"""Slices of volumes: which way up, how they are chosen, and that writing into one writes into the volume."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from medsegdiff.config.data import Plane
from medsegdiff.data.slicing import AXES, Slicing, common_plane
from medsegdiff.types import Geometry


def grid(spacing: tuple[float, float, float] = (1.0, 1.0, 1.0), shape: tuple[int, int, int] = (20, 20, 20)) -> Geometry:
    """Axes that run right, front and up."""
    return Geometry(shape, spacing, affine=np.diag([*spacing, 1.0]))


def turned_grid() -> Geometry:
    """Axes that run down, left and back."""
    affine = np.array([[0, -2, 0, 0], [0, 0, -3, 0], [-1, 0, 0, 0], [0, 0, 0, 1]], float)
    return Geometry((5, 3, 4), (1.0, 2.0, 3.0), affine=affine)


def picked(
    spacing: tuple[float, float, float],
    asked: Plane | Literal["auto"] = "auto",
    shape: tuple[int, int, int] = (20, 20, 20),
) -> Plane:
    return Slicing.of(grid(spacing, shape), asked).plane


@pytest.mark.parametrize(
    ("plane", "top", "right"),
    [("axial", (3, 6, 2), (5, 4, 2)), ("coronal", (3, 2, 6), (5, 2, 4)), ("sagittal", (2, 3, 6), (2, 5, 4))],
)
def test_up_is_up_and_front_is_up(plane: Plane, top: tuple[int, ...], right: tuple[int, ...]) -> None:
    """What is far to the front or up is in the first row, what is far to the right or front in the last column."""
    volume = np.zeros((6, 7, 7) if plane != "sagittal" else (6, 6, 7), np.uint8)
    volume[top], volume[right] = 1, 2
    shown = Slicing(grid(shape=volume.shape), plane).cut(volume, 2)
    assert np.argwhere(shown == 1)[0][0] == 0
    assert np.argwhere(shown == 2)[0][1] == shown.shape[1] - 1


@pytest.mark.parametrize("plane", list(AXES))
def test_what_is_pasted_into_slices_is_in_the_volume_however_its_axes_run(plane: Plane) -> None:
    slicing = Slicing(turned_grid(), plane)
    source, copy = np.random.default_rng(0).random((2, *slicing.native.shape)), np.zeros((2, *slicing.native.shape))
    assert len(slicing) == slicing.native.shape[slicing.native_axis]
    for index in range(len(slicing)):
        slicing.paste(copy, index, slicing.cut(source, index))
    assert np.array_equal(copy, source)


def test_slices_of_one_volume_are_the_same_however_its_axes_run() -> None:
    there = turned_grid()
    volume = np.random.default_rng(0).random(there.shape)
    front_up = volume.transpose(1, 2, 0)[::-1, ::-1, ::-1]  # left → right, back → front, down → up
    for plane in AXES:
        one, other = Slicing(there, plane), Slicing(grid((2.0, 3.0, 1.0), front_up.shape), plane)
        assert (len(one), one.spacing) == (len(other), other.spacing)
        assert all(np.array_equal(one.cut(volume, i), other.cut(front_up, i)) for i in range(len(one)))


def test_a_clearly_thicker_axis_is_cut_and_in_doubt_the_axial_one() -> None:
    assert picked((4.0, 1.0, 1.0)) == "sagittal"
    assert picked((1.0, 4.0, 1.0)) == "coronal"
    assert picked((1.0, 1.0, 1.0)) == picked((0.7, 0.7, 5.0)) == picked((0.98, 0.98, 0.9)) == "axial"
    assert picked((4.0, 1.0, 1.0), "coronal") == "coronal"
    assert picked((1.4, 1.4, 1.0)) == "axial"  # no other axis is clearly the thickest
    assert picked((1.5, 1.0, 1.0), shape=(20, 20, 1)) == "axial"  # a picture is the slice that it is
    assert picked((1.0, 1.0, 5.0), shape=(20, 1, 9)) == "coronal"


def test_volumes_are_cut_alike_by_the_middle_of_them() -> None:
    assert common_plane([grid((1.0, 1.0, 4.0)), grid((1.0, 1.0, 4.0)), grid((9.0, 1.0, 1.0))]) == "axial"
    assert common_plane([grid((4.0, 1.0, 1.0)), grid((4.0, 1.0, 1.0)), grid((1.0, 9.0, 1.0))]) == "sagittal"


def test_spacing_of_a_slice_is_that_of_its_rows_and_columns() -> None:
    volume = grid((1.0, 2.0, 3.0))
    assert Slicing(volume, "axial").spacing == (2.0, 1.0)
    assert Slicing(volume, "coronal").spacing == (3.0, 1.0)
    assert Slicing(volume, "sagittal").spacing == (3.0, 2.0)


def test_the_slice_with_most_of_a_structure_is_shown_else_the_middle_one() -> None:
    masks = np.zeros((2, 2, 3, 8), np.uint8)
    slicing = Slicing.of(grid(shape=(2, 3, 8)))
    assert slicing.where(masks) == 4
    masks[0, :, 0, 6], masks[0, 0, 0, 1], masks[1, 0, 0, 1] = 1, 1, 0
    assert slicing.where(masks) == 6
    masks[1, :, 0, 1] = 1  # of all structures together
    assert slicing.where(masks) == 1
    assert slicing.areas(masks).tolist() == [0, 3, 0, 0, 0, 0, 2, 0]


def test_a_slice_takes_those_beside_it_along_and_at_the_end_itself() -> None:
    image = np.arange(5, dtype=np.float32)[None, None, None] * np.ones((2, 3, 4, 1), np.float32)
    slicing, intensity = Slicing(grid(shape=(3, 4, 5)), "axial"), np.ones((2, 2), np.float32)
    case = slicing.case("v/0004", image, 4, neighbours=1, intensity=intensity)
    assert case.image[:, 0, 0].tolist() == [3, 3, 4, 4, 4, 4]
    assert slicing.names("v")[4] == case.name
