"""RTSTRUCT: contours drawn on a series, filled to masks."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from medsegdiff.errors import GeometryError, some
from medsegdiff.io.dicom import DicomHeader, dicom_grid
from medsegdiff.io.dicom_file import Dataset, damage_named, open_object
from medsegdiff.io.dicom_grid import to_index
from medsegdiff.types import Geometry

log = logging.getLogger(__name__)

CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
"""Types of contours that enclose an area; the others are points and lines."""
SAME_PLANE = 0.05
"""Distance, in slices, below which contours lie in one plane; also how flat a contour must be."""

Contour = Float[np.ndarray, "_ 3"]
"""Corners of a polygon as index (i, j, k)."""


def read_rtstruct(
    path: Path, geometry: Geometry, *, wanted: Collection[str] | None = None
) -> tuple[tuple[str, ...], UInt8[np.ndarray, "s i j k"]]:
    """Read the structures of an RTSTRUCT file, or those ``wanted`` of them, as masks on the grid of its series.

    A voxel belongs to a structure if its centre lies inside. Contours of one plane count even-odd: a contour
    within another is a hole; one that is there twice counts once. Contours between slices go to the nearest slice,
    those halfway to the one above; where several planes meet in one slice, the plane nearest to it counts.
    """
    affine, header = dicom_grid(geometry)
    dataset = open_object(path, "RTSTRUCT")
    with damage_named(path):
        regions = {
            int(region.ROINumber): region
            for region in dataset.StructureSetROISequence
            if wanted is None or str(region.ROIName) in wanted
        }
        contours = {number: _contours(dataset, number, affine) for number in regions}
        names = {number: str(region.ROIName) for number, region in regions.items()}
    masks = np.zeros((len(regions), *geometry.shape), np.uint8)
    for mask, number in zip(masks, regions, strict=True):
        where = f"{path}: structure '{names[number]}'"
        _check_frame_of_reference(dataset, regions[number], header, where)
        _check_planes(contours[number], geometry.shape[2], where)
        _fill_slices(mask, _once(contours[number], where))
    return tuple(names.values()), masks


def fill_even_odd(polygons: Iterable[Float[np.ndarray, "_ 2"]], size: tuple[int, int]) -> UInt8[np.ndarray, "i j"]:
    """Fill polygons on a grid: a pixel is in if a ray from its centre crosses their edges an odd number of times.

    A centre that lies on an edge is in where the inside is on the side of growing i or j, so polygons that share
    an edge share no pixel. Corners are rounded to 1e-6 of a pixel, far above the noise of the world matrix.
    """
    crossings = np.zeros((size[0] + 1, size[1]), np.int64)  # the last row collects what lies beyond the grid
    for polygon in polygons:
        i, j = _crossings(np.round(polygon, 6), size[1])
        np.add.at(crossings, (np.clip(np.ceil(np.round(i, 6)), 0, size[0]).astype(np.int64), j), 1)
    return (np.cumsum(crossings[:-1], axis=0) % 2).astype(np.uint8)


def _crossings(corners: Float[np.ndarray, "n 2"], count: int) -> tuple[Float[np.ndarray, " e"], Int[np.ndarray, " e"]]:
    """Find where the edges of a polygon cross the lines j = 0 … count - 1."""
    ends = np.roll(corners, -1, axis=0)
    lower, upper = np.minimum(corners[:, 1], ends[:, 1]), np.maximum(corners[:, 1], ends[:, 1])
    first, beyond = (np.clip(np.ceil(bound), 0, count).astype(np.int64) for bound in (lower, upper))
    edge = np.repeat(np.arange(len(corners)), beyond - first)
    before = np.cumsum(beyond - first) - (beyond - first)  # crossings of the edges before
    j = np.arange(len(edge)) - before[edge] + first[edge]
    (i_0, j_0), (i_1, j_1) = corners[edge].T, ends[edge].T
    return i_0 + (j - j_0) * (i_1 - i_0) / (j_1 - j_0), j


def _contours(dataset: Dataset, number: int, affine: Float[np.ndarray, "4 4"]) -> list[Contour]:
    """Read the closed contours of one structure."""
    found: list[Contour] = []
    drawn = [item for item in dataset.get("ROIContourSequence") or [] if int(item.ReferencedROINumber) == number]
    for contour in [contour for item in drawn for contour in item.get("ContourSequence") or []]:
        points = np.array(contour.get("ContourData") or [], np.float64).reshape(-1, 3)
        if contour.ContourGeometricType in CLOSED and len(points) >= 3:
            found.append(to_index(points, affine))
        else:
            kind = contour.ContourGeometricType
            log.warning("structure %d: a contour %s of %d points has no area; left out", number, kind, len(points))
    return found


def _check_frame_of_reference(dataset: Dataset, region: Dataset, header: DicomHeader, where: str) -> None:
    """Accept the series' own frame of reference, or one that the file invented for the series it names."""
    frame = str(region.get("ReferencedFrameOfReferenceUID", "none"))
    if header.series not in _series_of(dataset, frame):  # rt-utils invents one
        header.check_frame_of_reference(frame, where)


def _series_of(dataset: Dataset, frame: str) -> set[str]:
    """Find the series on which, as the file says, structures of a frame of reference were drawn."""
    references = [
        item for item in dataset.get("ReferencedFrameOfReferenceSequence") or [] if item.FrameOfReferenceUID == frame
    ]
    studies = [study for item in references for study in item.get("RTReferencedStudySequence") or []]
    series = [one for study in studies for one in study.get("RTReferencedSeriesSequence") or []]
    return {str(one.SeriesInstanceUID) for one in series}


def _check_planes(contours: Sequence[Contour], count: int, where: str) -> None:
    tilted = [f"{np.ptp(contour[:, 2]):.2g} slices" for contour in contours if np.ptp(contour[:, 2]) > SAME_PLANE]
    if tilted:
        raise GeometryError(
            f"{where}: {len(tilted)} contours are not parallel to the slices but rise by {some(tilted)}. "
            "Give the series on which they were drawn."
        )
    beyond = [f"{_depth(contour):.2f}" for contour in contours if not -0.5 <= _depth(contour) <= count - 0.5]
    if beyond:
        raise GeometryError(
            f"{where}: {len(beyond)} of {len(contours)} contours lie outside the series, at slice {some(beyond)}; "
            f"it has the slices 0 … {count - 1}, half a slice more is allowed. Give the whole series."
        )


def _once(contours: Sequence[Contour], where: str) -> list[Contour]:
    """Leave out contours that are there already: with the first they would enclose nothing."""
    found = {
        (_depth(contour), np.unique(contour[:, :2].round(3) + 0.0, axis=0).tobytes()): contour for contour in contours
    }
    if len(found) < len(contours):
        log.warning("%s: %d contours are there twice; counted once", where, len(contours) - len(found))
    return list(found.values())


def _fill_slices(mask: UInt8[np.ndarray, "i j k"], contours: Sequence[Contour]) -> None:
    """Fill, slice by slice, the plane of contours that is nearest."""
    nearest: dict[int, list[Contour]] = {}
    for plane in _planes(contours):
        k = min(math.floor(_depth(plane[0]) + 0.5), mask.shape[2] - 1)
        if k not in nearest or abs(_depth(plane[0]) - k) < abs(_depth(nearest[k][0]) - k):
            nearest[k] = plane
    for k, plane in nearest.items():
        mask[:, :, k] = fill_even_odd([contour[:, :2] for contour in plane], mask.shape[:2])


def _planes(contours: Sequence[Contour]) -> list[list[Contour]]:
    """Gather contours that lie in one plane."""
    planes: list[list[Contour]] = []
    for contour in sorted(contours, key=_depth):
        if planes and _depth(contour) - _depth(planes[-1][0]) < SAME_PLANE:
            planes[-1].append(contour)
        else:
            planes.append([contour])
    return planes


def _depth(contour: Contour) -> float:
    """Tell the slice of a contour, rounded far above the noise of the world matrix."""
    return round(float(contour[:, 2].mean()), 3)
