"""Slices of volumes: which way up, how they are chosen, and that writing into one writes into the volume."""

from __future__ import annotations

import numpy as np
import pytest

from medsegdiff.data.planes import AXES, Plane, middle_of, pick_plane, slice_of, spacing_of
from medsegdiff.types import Geometry


@pytest.mark.parametrize(
    ("plane", "top", "right"),
    [("axial", (3, 6, 2), (5, 4, 2)), ("coronal", (3, 2, 6), (5, 2, 4)), ("sagittal", (2, 3, 6), (2, 5, 4))],
)
def test_up_is_up_and_front_is_up(plane: Plane, top: tuple[int, ...], right: tuple[int, ...]) -> None:
    """What is far to the front or up is in the first row, what is far to the right or front in the last column."""
    volume = np.zeros((6, 7, 7) if plane != "sagittal" else (6, 6, 7), np.uint8)
    volume[top], volume[right] = 1, 2
    shown = slice_of(volume, plane, 2)
    assert np.argwhere(shown == 1)[0][0] == 0
    assert np.argwhere(shown == 2)[0][1] == shown.shape[1] - 1


@pytest.mark.parametrize("plane", list(AXES))
def test_what_is_written_into_slices_is_in_the_volume(plane: Plane) -> None:
    source, copy = np.random.default_rng(0).random((2, 3, 4, 5)), np.zeros((2, 3, 4, 5))
    for index in range(source.shape[1 + AXES[plane]]):
        slice_of(copy, plane, index)[...] = slice_of(source, plane, index)
    assert np.array_equal(copy, source)


def test_a_clearly_thicker_axis_is_cut_and_in_doubt_the_axial_one() -> None:
    assert pick_plane((4.0, 1.0, 1.0)) == "sagittal"
    assert pick_plane((1.0, 4.0, 1.0)) == "coronal"
    assert pick_plane((1.0, 1.0, 1.0)) == pick_plane((0.7, 0.7, 5.0)) == pick_plane((0.98, 0.98, 0.9)) == "axial"
    assert pick_plane((4.0, 1.0, 1.0), "coronal") == "coronal"
    assert pick_plane((1.4, 1.4, 1.0)) == "axial"  # no other axis is clearly the thickest
    assert pick_plane((1.5, 1.0, 1.0), shape=(20, 20, 1)) == "axial"  # a picture is the slice that it is
    assert pick_plane((1.0, 1.0, 5.0), shape=(20, 1, 9)) == "coronal"


def test_spacing_of_a_slice_is_that_of_its_rows_and_columns() -> None:
    assert spacing_of((1.0, 2.0, 3.0), "axial") == (2.0, 1.0)
    assert spacing_of((1.0, 2.0, 3.0), "coronal") == (3.0, 1.0)
    assert spacing_of((1.0, 2.0, 3.0), "sagittal") == (3.0, 2.0)


def test_the_slice_with_most_of_a_structure_is_shown() -> None:
    volume = np.arange(2 * 3 * 8).reshape(1, 2, 3, 8).astype(np.float32)
    masks = np.zeros((1, 2, 3, 8), np.uint8)
    masks[0, :, 0, 6], masks[0, 0, 0, 1] = 1, 1
    geometry = Geometry((2, 3, 8), (1.0, 1.0, 1.0), affine=np.eye(4))
    assert np.array_equal(middle_of(volume, geometry, masks)[0], volume[0, :, ::-1, 6].T)
    assert np.array_equal(middle_of(volume, geometry)[0], volume[0, :, ::-1, 4].T)
