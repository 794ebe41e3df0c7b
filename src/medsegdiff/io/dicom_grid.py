"""Where DICOM slices lie: planes of rows and columns, the stack they make, and points of the patient on its grid.

DICOM counts in LPS+ (to the left, the back and the head), `Geometry` in RAS+ (to the right, the front and the
head). Axes are i along a row (the column index), j down a column (the row index), k from slice to slice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from medsegdiff.errors import DataError, some

RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Turns the first two axes of the world."""
UNEVEN = 0.01
"""By how much of itself the step between slices may vary."""
ROUNDED = 0.01
"""Or how far, in mm along each axis, slices may lie from even steps: positions are rounded to so much."""
SQUARE = 0.01
"""How far directions may be from length 1 and right angles (dot products): they are rounded, too."""
SAME_PLACE = 1e-3
"""Distance in mm below which two slices lie in one place."""


@dataclass(frozen=True)
class Plane:
    """Where one picture lies in the patient: LPS+, mm, indices (i, j)."""

    size: tuple[int, int]
    """Columns, rows."""
    spacing: tuple[float, float]
    """From column to column and from row to row, in mm."""
    across: Float[np.ndarray, " 3"]
    """Direction in which i grows, of length 1."""
    down: Float[np.ndarray, " 3"]
    """Direction in which j grows, of length 1."""
    origin: Float[np.ndarray, " 3"]
    """Centre of the first pixel."""

    @property
    def normal(self) -> Float[np.ndarray, " 3"]:
        """Direction in which slices are counted."""
        return np.cross(self.across, self.down)

    def __str__(self) -> str:
        columns, rows = self.size
        spacing = f"{self.spacing[0]:g} × {self.spacing[1]:g} mm"
        directions = ", ".join(f"{value:g}" for value in np.round([*self.across, *self.down], 4) + 0.0)
        return f"{columns} × {rows} pixels of {spacing}, orientation ({directions})"

    def affine(self, step: Float[np.ndarray, " 3"]) -> Float[np.ndarray, "4 4"]:
        """Make the world matrix of a stack that begins with this plane."""
        affine = np.eye(4)
        affine[:3] = np.stack([self.across * self.spacing[0], self.down * self.spacing[1], step, self.origin], axis=1)
        return RAS_FROM_LPS @ affine


def make_plane(
    size: tuple[int, int], orientation: Sequence[float], position: Sequence[float], pixel_spacing: Sequence[float]
) -> Plane:
    """Make a plane of the values of a DICOM header."""
    for what, numbers, count in (
        ("orientation", orientation, 6),
        ("position", position, 3),
        ("pixel spacing", pixel_spacing, 2),
    ):
        if len(numbers) != count or not np.isfinite(np.array(numbers, np.float64)).all():
            raise DataError(f"the {what} {tuple(numbers)} is not {count} numbers.")
    across, down = np.array(orientation, np.float64).reshape(2, 3)
    products = np.array([across @ across, down @ down, across @ down])
    between_rows, between_columns = (float(value) for value in pixel_spacing)
    if not np.allclose(products, [1, 1, 0], rtol=0, atol=SQUARE):
        raise DataError(f"the orientation {tuple(orientation)} is not two directions at right angles.")
    if not (between_rows > 0 and between_columns > 0):
        raise DataError(f"the pixel spacing {tuple(pixel_spacing)} is not positive.")
    across, down = across / np.linalg.norm(across), down / np.linalg.norm(down)
    return Plane(size, (between_columns, between_rows), across, down, np.array(position, np.float64))


def sort_planes(planes: Mapping[str, Plane]) -> list[str]:
    """Sort the slices of a stack along its normal, and refuse those that make none."""
    _check_alike(planes)
    normal = next(iter(planes.values())).normal
    names = sorted(planes, key=lambda name: float(planes[name].origin @ normal))
    depths = np.array([planes[name].origin @ normal for name in names])
    _check_places(names, depths)
    _check_steps(names, np.array([planes[name].origin for name in names]))
    return names


def step_between(planes: Sequence[Plane], thickness: float) -> Float[np.ndarray, " 3"]:
    """Find the step from slice to slice; with a tilted gantry it is not along the normal."""
    if len(planes) == 1:
        return planes[0].normal * thickness
    return (planes[-1].origin - planes[0].origin) / (len(planes) - 1)


def to_index(points: Float[np.ndarray, "n 3"], affine: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "n 3"]:
    """Find where points of the patient lie on the grid."""
    inverse = np.linalg.inv(RAS_FROM_LPS @ affine)
    return points @ inverse[:3, :3].T + inverse[:3, 3]


def _check_alike(planes: Mapping[str, Plane]) -> None:
    first_name, first = next(iter(planes.items()))
    other = [f"{name}: {plane}" for name, plane in planes.items() if not _alike(first, plane)]
    if other:
        raise DataError(
            f"size, spacing or orientation differ: {first_name} has {first}; {some(other)} ({len(other)} of "
            f"{len(planes)} slices). All slices of a volume must be alike; move the others, a scout perhaps, away."
        )


def _alike(first: Plane, second: Plane) -> bool:
    return (
        first.size == second.size
        and np.allclose(first.spacing, second.spacing, rtol=1e-3)
        and np.allclose(np.concatenate([first.across - second.across, first.down - second.down]), 0, atol=1e-3)
    )


def _check_places(names: Sequence[str], depths: Float[np.ndarray, " k"]) -> None:
    twice = np.flatnonzero(np.diff(depths) < SAME_PLACE).tolist()
    if twice:
        pairs = [f"{names[k]} and {names[k + 1]} (at {depths[k]:g} mm)" for k in twice]
        raise DataError(
            f"slices lie in the same place: {some(pairs)}. Allowed is one slice per place; "
            "split time points, echoes or copies into folders of their own."
        )


def _check_steps(names: Sequence[str], origins: Float[np.ndarray, "k 3"]) -> None:
    steps = np.diff(origins, axis=0)
    if len(steps) < 2:
        return
    lengths = np.linalg.norm(steps, axis=1)
    usual = steps[np.argsort(lengths)[(len(steps) - 1) // 2]]  # of two, the shorter: a gap is a missing slice
    length = float(np.linalg.norm(usual))
    uneven = np.flatnonzero(np.linalg.norm(steps - usual, axis=1) > UNEVEN * length).tolist()
    if uneven and not _rounded(origins, length):
        gaps = [f"{lengths[k]:.3g} mm from {names[k]} to {names[k + 1]}" for k in uneven]
        raise DataError(
            f"the steps between slices are not even: {length:.3g} mm mostly, but {some(gaps)}. Allowed is a difference "
            f"of {UNEVEN:.0%}, or of {ROUNDED:g} mm from even places. Slices are missing or shifted: export the series "
            "again, or resample it to even steps."
        )


def _rounded(origins: Float[np.ndarray, "k 3"], step: float) -> bool:
    """Tell whether slices lie evenly between first and last but for rounding; with one missing, they do not."""
    even = np.linspace(origins[0], origins[-1], len(origins))
    return bool(np.abs(origins - even).max().round(6) <= min(ROUNDED, step / 10))
