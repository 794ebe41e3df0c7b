"""One slice of a case with all that was drawn on it: of a volume the one that shows most."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped

from medsegdiff.config.data import Plane
from medsegdiff.data.planes import AXES, pick_plane, slice_of, spacing_of
from medsegdiff.errors import MedSegDiffError
from medsegdiff.evaluation.case import Structure, entropy, structures_of
from medsegdiff.evaluation.matching import Pairing, grid_of
from medsegdiff.io.grid import canonical_geometry, canonical_view
from medsegdiff.io.image import read_image
from medsegdiff.types import Geometry

Cut = Callable[[np.ndarray], np.ndarray]
"""Takes the slice out of an array on the grid of the case, whose first axes may be others."""


@dataclass(frozen=True)
class StructureSlice:
    """What was drawn of a structure."""

    name: str
    raters: Bool[np.ndarray, "r h w"]
    reference: Bool[np.ndarray, "h w"]
    """The majority."""
    predicted: Bool[np.ndarray, "h w"]


@dataclass(frozen=True)
class CaseSlice:
    """A case as it is looked at."""

    name: str
    shape: tuple[int, int]
    spacing: tuple[float, float]
    """Of the pixels, height and width."""
    structures: tuple[StructureSlice, ...]
    image: Float[np.ndarray, "c h w"] | None
    """``None`` where the references came without images."""
    uncertainty: Float[np.ndarray, "h w"] | None
    """Entropy of the probability, the largest of all structures; ``None`` without probabilities."""
    where: str = ""
    """Which slice of a volume."""

    @property
    def num_raters(self) -> int:
        """How many drew this case."""
        return len(self.structures[0].raters)


def slice_case(name: str, pairing: Pairing) -> CaseSlice:
    """Read a case again and cut it where there is most to be seen."""
    geometry = grid_of(name, pairing.reference)
    cut, spacing, where = _place(name, pairing, geometry)
    structures, doubt = [], []
    for structure in structures_of(name, pairing):
        structures.append(_cut_structure(structure, cut))
        if structure.probability is not None:
            doubt.append(entropy(cut(structure.probability)))
    height, width = structures[0].predicted.shape
    return CaseSlice(
        name,
        (height, width),
        spacing,
        tuple(structures),
        _image(name, pairing, geometry, cut),
        np.max(doubt, axis=0) if doubt else None,
        where,
    )


def _place(name: str, pairing: Pairing, geometry: Geometry) -> tuple[Cut, tuple[float, float], str]:
    """Find out how to cut, how large the pixels are then, and how to call the slice."""
    if len(geometry.shape) == 2:
        return lambda array: array, (geometry.spacing[0], geometry.spacing[1]), ""
    canonical = canonical_geometry(geometry)
    plane, index = best_slice(name, pairing, geometry)
    where = f"{plane} slice {index + 1} of {canonical.shape[AXES[plane]]}"
    return _cutter(geometry, plane, index), spacing_of(canonical.spacing, plane), where


def best_slice(name: str, pairing: Pairing, geometry: Geometry) -> tuple[Plane, int]:
    """Find the slice of a volume in which the references are largest, or the predictions where there are none."""
    canonical = canonical_geometry(geometry)
    plane = pick_plane(canonical.spacing, shape=canonical.shape)
    drawn = pairing.reference.stored(name)

    def references(channel: int) -> np.ndarray:
        return pairing.reference.channel(drawn, pairing.coding, channel).sum(axis=0)

    def predicted(channel: int) -> np.ndarray:
        return pairing.predictions.reader(name)(channel)[0]

    for masks in (references, predicted):
        areas = sum(area_by_slice(canonical_view(masks(channel), geometry), plane) for channel in pairing.channels)
        if np.any(areas):
            return plane, int(np.argmax(areas))
    return plane, canonical.shape[AXES[plane]] // 2


def area_by_slice(drawn: Shaped[np.ndarray, "x y z"], plane: Plane) -> np.ndarray:
    """Count voxels slice by slice."""
    others = tuple(axis for axis in range(3) if axis != AXES[plane])
    return np.asarray(drawn.sum(axis=others))


def _cutter(geometry: Geometry, plane: Plane, index: int) -> Cut:
    return lambda array: np.ascontiguousarray(slice_of(canonical_view(array, geometry), plane, index))


def _cut_structure(structure: Structure, cut: Cut) -> StructureSlice:
    raters = np.stack([cut(mask) for mask in structure.raters.values()])
    return StructureSlice(structure.name, raters, cut(structure.reference), cut(structure.predicted))


def _image(name: str, pairing: Pairing, geometry: Geometry, cut: Cut) -> np.ndarray | None:
    """Read the first image of a case, if there is one that can be read and lies on the grid of its masks."""
    case = pairing.cases.get(name)
    if case is None or not case.images:
        return None
    try:
        pixels, _ = read_image(case.images[0])
    except (MedSegDiffError, OSError):  # scores are known by now: a report without this image says more than none
        return None
    if pixels.shape[1:] != geometry.shape:
        return None
    return cut(pixels if len(geometry.shape) == 2 else pixels[:1])
