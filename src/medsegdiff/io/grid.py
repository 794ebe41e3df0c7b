"""Grids in the world: whether two are the same, and how to turn a volume to right, anterior, superior and back."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
from jaxtyping import Float, Shaped
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from medsegdiff.errors import GeometryError
from medsegdiff.types import Geometry

TOLERANCE = 0.1
"""How far corners of one grid may lie apart, in voxels: programs round affines, and a qform is good to 3e-4 a voxel."""


def check_same_grid(image: Geometry, mask: Geometry, *, names: tuple[str, str] = ("image", "mask")) -> None:
    """Refuse two volumes whose voxels do not lie on each other."""
    one, other = names
    if image.shape != mask.shape:
        raise GeometryError(
            f"{one} and {other} have different shapes: {image.shape} and {mask.shape}. "
            f"Resample {other} to the grid of {one}, by the nearest neighbour if it holds labels."
        )
    if image.affine is None or mask.affine is None:
        return
    if _displacement(image, mask) > TOLERANCE * min(*image.spacing, *mask.spacing):
        raise GeometryError(
            f"{one} and {other} lie {_displacement(image, mask):.3g} mm apart at the worst corner; allowed is "
            f"{TOLERANCE:g} of a voxel. Resample {other} to the grid of {one}, or correct the "
            "header that is wrong."
        )


def canonical_view(voxels: Shaped[np.ndarray, "*c i j k"], geometry: Geometry) -> Shaped[np.ndarray, "*c x y z"]:
    """Reorder and flip axes so that they run most nearly right, front and up; nothing is resampled.

    It is a view, without a copy: what is written into it is in the array.
    """
    _check_shape(voxels, geometry.shape)
    return _turned(voxels, io_orientation(_affine(geometry)))


def native_axis(geometry: Geometry, canonical: int) -> int:
    """Find the axis of a volume that becomes one of the canonical axes."""
    return int(np.flatnonzero(io_orientation(_affine(geometry))[:, 0] == canonical)[0])


def canonical_geometry(geometry: Geometry) -> Geometry:
    """Tell where a volume lies as `canonical_view` shows it."""
    affine, turn = _affine(geometry), io_orientation(_affine(geometry))
    order = np.argsort(turn[:, 0])
    return replace(
        geometry,
        shape=tuple(geometry.shape[axis] for axis in order),
        spacing=tuple(geometry.spacing[axis] for axis in order),
        affine=affine @ inv_ornt_aff(turn, geometry.shape),
    )


def _displacement(a: Geometry, b: Geometry) -> float:
    """Measure how far the corners of two grids of one shape are apart, at most, in mm."""
    corners = np.array([[*corner, 1] for corner in product(*((0, n - 1) for n in a.shape))])
    return float(np.linalg.norm(corners @ (_affine(a) - _affine(b)).T, axis=1).max())


def _affine(geometry: Geometry) -> Float[np.ndarray, "4 4"]:
    if geometry.affine is None:
        raise GeometryError(f"The geometry {geometry.shape} has no affine: it is that of a picture. Give a volume's.")
    return geometry.affine


def _check_shape(voxels: Shaped[np.ndarray, "*c i j k"], shape: tuple[int, ...]) -> None:
    if voxels.shape[-3:] != shape:
        raise GeometryError(
            f"The voxels are {voxels.shape[-3:]}, their geometry is {shape}. Give the geometry they were read with."
        )


def _turned(voxels: Shaped[np.ndarray, "*c i j k"], turn: Float[np.ndarray, "3 2"]) -> Shaped[np.ndarray, "*c x y z"]:
    space_first = np.moveaxis(voxels, (-3, -2, -1), (0, 1, 2))
    return np.moveaxis(apply_orientation(space_first, turn), (0, 1, 2), (-3, -2, -1))
