"""What is measured of a mask: its size, components, place, extent, and whether the image holds all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Int32, UInt8
from scipy.ndimage import find_objects
from scipy.spatial import ConvexHull
from scipy.spatial.distance import cdist

from medsegdiff.io.atomic import release
from medsegdiff.labels import Labels
from medsegdiff.metrics.instances import components
from medsegdiff.metrics.units import to_mm, unit_of
from medsegdiff.types import Geometry

ALL = {2: 8, 3: 26}
"""Neighbours of a pixel, by axes."""
PAIRS = 1 << 22
"""Distances that are computed together."""

Box = tuple[slice, ...]
"""A slice by axis of space."""


@dataclass(frozen=True)
class Measures:
    """What is measured of the mask of a structure; the voxels of a picture are its pixels."""

    voxels: int
    size: float
    """Area or volume."""
    unit: str
    """Of the size: ``mL`` in volumes; in pictures ``px``, or ``mm2`` where the spacing is known."""
    components: int = 0
    """Connected components; voxels that share a corner are connected."""
    diameter: float | None = None
    """Largest distance between the centres of two voxels, of all components together: of one voxel 0. ``None``, as
    what follows, of an empty mask."""
    length_unit: str = "px"
    """Of the diameter: ``mm``, or ``px``."""
    incomplete: bool = False
    """Whether the mask reaches the border of the image, so that part of the structure may lie beyond. Axes with one
    voxel do not count: a volume of one slice is a picture."""
    centroid: tuple[float, ...] | None = None
    """Mean voxel index by array axis, from 0."""
    position: tuple[float, ...] | None = None
    """The same in mm in the world, RAS+; ``None`` for pictures."""
    first: tuple[int, ...] | None = None
    """Lowest voxel index by array axis."""
    last: tuple[int, ...] | None = None
    """Highest."""


def measures_of(label_map: UInt8[np.ndarray, "..."], labels: Labels, geometry: Geometry) -> dict[str, Measures]:
    """Measure each structure within the box around it, so that a label map may lie in a file.

    Args:
        label_map: As `Labels` has it.
        labels: What it holds.
        geometry: Where it lies.

    Returns:
        By structure, of empty ones too.
    """
    found = {}
    for index, (name, box) in enumerate(zip(labels.structures, boxes_of(label_map, labels), strict=True)):
        inside = None if box is None else labels.mask(within(label_map, box), index) > 0
        found[name] = _measures(inside, box, geometry)
        release(label_map)
    return found


def boxes_of(label_map: UInt8[np.ndarray, "..."], labels: Labels) -> list[Box | None]:
    """Find the smallest box around each structure.

    Args:
        label_map: As `Labels` has it; one in a file is read once.
        labels: What it holds.

    Returns:
        By structure; ``None`` of an empty one.
    """
    maps, count = (label_map, 1) if labels.task == "regions" else (label_map[None], len(labels.structures))
    boxes: list[Box | None] = [box for structures in maps for box in find_objects(structures, max_label=count)]
    release(label_map)
    return boxes


def within(label_map: UInt8[np.ndarray, "..."], box: Box) -> UInt8[np.ndarray, "..."]:
    """Look at a label map inside a box, without a copy.

    Args:
        label_map: As `Labels` has it.
        box: By axis of space.

    Returns:
        A view: what is written into it is in the label map.
    """
    return label_map[(slice(None),) * (label_map.ndim - len(box)) + box]


def numbered(mask: Bool[np.ndarray, "*s"]) -> Int32[np.ndarray, "*s"]:
    """Number the connected components of a mask, where voxels that share a corner are connected.

    They are numbered along the axes as these lie in memory: that takes less than half as long for slices of a volume.

    Args:
        mask: Of two or three axes.

    Returns:
        0 outside of the mask, else from 1 up.
    """
    order = np.argsort(mask.strides)[::-1]
    return components(mask.transpose(order), connectivity=ALL[mask.ndim]).transpose(np.argsort(order))


def _measures(mask: Bool[np.ndarray, "*s"] | None, box: Box | None, geometry: Geometry) -> Measures:
    """Measure what is cut out of an image along a box."""
    (scale, unit), length_unit = unit_of(geometry), "px"
    if unit != "px":
        length_unit = "mm"
    if mask is None or box is None:
        return Measures(0, 0.0, unit, length_unit=length_unit)
    voxels, first = int(np.count_nonzero(mask)), [side.start for side in box]
    centroid = [start + place for start, place in zip(first, _mean_index(mask), strict=True)]
    return Measures(
        voxels=voxels,
        size=voxels * scale,
        unit=unit,
        components=int(numbered(mask).max()),
        diameter=_diameter(mask, to_mm(geometry)),
        length_unit=length_unit,
        incomplete=any(
            n > 1 and (side.start == 0 or side.stop == n) for side, n in zip(box, geometry.shape, strict=True)
        ),
        centroid=tuple(centroid),
        position=_in_world(centroid, geometry),
        first=tuple(first),
        last=tuple(side.stop - 1 for side in box),
    )


def _in_world(index: Sequence[float], geometry: Geometry) -> tuple[float, ...] | None:
    affine = geometry.affine
    return None if affine is None else tuple((affine[:3, :3] @ np.array(index) + affine[:3, 3]).tolist())


def _mean_index(mask: Bool[np.ndarray, "*s"]) -> list[float]:
    """Average by axis, from counts: scipy's center_of_mass makes an array of 8 bytes a voxel for each."""
    axes = range(mask.ndim)
    counts = [np.count_nonzero(mask, axis=tuple(a for a in axes if a != axis)) for axis in axes]
    return [float(np.arange(len(of)) @ of / of.sum()) for of in counts]


def _diameter(mask: Bool[np.ndarray, "*s"], to_mm: Float[np.ndarray, "n n"]) -> float:
    """Find the largest distance of two voxels: both are corners of the convex hull."""
    corners = _hull(_ends(mask)) @ to_mm.T
    parts = np.array_split(corners, -(-(len(corners) ** 2) // PAIRS))
    return float(max(cdist(part, corners).max() for part in parts if len(part)))


def _ends(mask: Bool[np.ndarray, "*s"]) -> Int[np.ndarray, "p n"]:
    """List the first and the last voxel of each line along the longest axis: all others lie between two voxels."""
    axis = int(np.argmax(mask.shape))
    lines = np.argwhere(mask.any(axis=axis))
    turned = np.moveaxis(mask, axis, -1)
    first, last = turned.argmax(axis=-1), turned.shape[-1] - 1 - turned[..., ::-1].argmax(axis=-1)
    ends = [np.insert(lines, axis, of[tuple(lines.T)], axis=1) for of in (first, last)]
    return np.unique(np.concatenate(ends), axis=0)


def _hull(points: Int[np.ndarray, "p n"]) -> Int[np.ndarray, "q n"]:
    """Keep the corners of the convex hull, in the line or the plane that the points span, if they span no more.

    A change of axes keeps what is a corner, so the hull is that of voxel indices, which are exact.
    """
    centred = points - points.mean(axis=0)
    _, spread, axes = np.linalg.svd(centred, full_matrices=False)
    spanned = axes[spread > spread.max(initial=0) * 1e-9]
    along = centred @ spanned.T
    if len(spanned) == 0:
        return points
    if len(spanned) == 1:
        return points[[along[:, 0].argmin(), along[:, 0].argmax()]]
    return points[ConvexHull(along).vertices]
