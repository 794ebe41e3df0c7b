"""Cleaning masks: small components, all but the largest, holes. Label maps are changed where they lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Bool, UInt8
from scipy.ndimage import binary_dilation, binary_fill_holes

from medsegdiff.config.cleaning import Cleaning, amount_of
from medsegdiff.errors import DataError
from medsegdiff.inference.parts import Part
from medsegdiff.io.atomic import release
from medsegdiff.labels import Labels
from medsegdiff.metrics.instances import components
from medsegdiff.metrics.intervals import Stretch
from medsegdiff.metrics.measures import boxes_of, numbered, within
from medsegdiff.metrics.units import MM3_PER_ML, unit_of
from medsegdiff.types import Geometry

Cleanings = Mapping[str, Cleaning]
"""By structure."""
COUNTED = 1 << 24
"""Voxels that are counted together."""
SLACK = 1e-6
"""Relative error of the size of a voxel: a component that has what it needs at least stays."""


def clean_part(part: Part, labels: Labels, cleanings: Cleanings, geometry: Geometry) -> None:
    """Clean what is said of an image: mask, anchor and members, each by itself; of maps of numbers nothing."""
    if not cleanings:
        return
    for label_map in (part.mask, *([] if part.anchor is None else [part.anchor]), *part.members):
        clean(label_map, labels, cleanings, geometry)


def clean(label_map: UInt8[np.ndarray, "..."], labels: Labels, cleanings: Cleanings, geometry: Geometry) -> None:
    """Clean structures of a label map, which may lie in a file, each within the box around it.

    Components are removed from all structures before holes are filled. Of exclusive classes, what is removed becomes
    background, and only background is filled: another class that a structure encloses stays.
    """
    channels = int(labels.task == "regions")
    flat = tuple(channels + axis for axis, n in enumerate(geometry.shape) if n == 1)[: len(geometry.shape) - 2]
    label_map = label_map.squeeze(flat)  # a volume of one slice is a picture: it has holes
    asked = [
        (within(label_map, box), index, cleanings[name])
        for index, (name, box) in enumerate(zip(labels.structures, boxes_of(label_map, labels), strict=True))
        if name in cleanings and box is not None
    ]
    for part, index, how in asked:
        mask = labels.mask(part, index) > 0
        least = least_voxels(how, geometry)
        _paint(part, labels, index, mask & ~kept_components(mask, least=least, largest=how.keep == "largest"), value=0)
    for part, index, how in asked:
        if how.fill_holes:
            mask = labels.mask(part, index) > 0
            free = ~mask if channels else part == 0
            _paint(part, labels, index, holes(mask, free), value=1)
    release(label_map)


def kept_components(mask: Bool[np.ndarray, "*s"], *, least: float, largest: bool) -> Bool[np.ndarray, "*s"]:
    """Keep components that have so many voxels at least; of those, where asked, the largest, the first of equal ones.

    Voxels that share a corner are connected.
    """
    if not (least > 1 or largest) or not mask.any():
        return mask
    numbers = numbered(mask)
    flat, count = numbers.ravel(order="K"), int(numbers.max())
    parts = (flat[start : start + COUNTED] for start in range(0, flat.size, COUNTED))
    sizes = sum(np.bincount(part, minlength=count + 1) for part in parts)
    kept = np.asarray(sizes >= least)
    kept[0] = False
    if largest and kept.any():
        most = np.flatnonzero(kept & (sizes == np.max(sizes, where=kept, initial=0)))
        first = most[0] if len(most) == 1 else numbers[np.isin(numbers, most)][0]  # by its place, not by its number
        kept = np.arange(count + 1) == first
    return np.asarray(kept[numbers], bool)


def holes(mask: Bool[np.ndarray, "*s"], free: Bool[np.ndarray, "*s"]) -> Bool[np.ndarray, "*s"]:
    """Find the free pixels that a mask encloses, and that touch it: what lies in a ring inside is that ring's.

    The background is connected by sides, as the mask is by corners; what reaches the border is no hole.
    """
    enclosed = binary_fill_holes(mask) & free
    if not enclosed.any():
        return enclosed
    numbers = components(enclosed, connectivity=2 * mask.ndim)
    touching = np.zeros(numbers.max() + 1, bool)
    touching[numbers[binary_dilation(mask) & enclosed]] = True
    return touching[numbers]


def least_voxels(how: Cleaning, geometry: Geometry) -> float:
    """Count the voxels that a component must have to stay; refuse a unit that an image does not have."""
    if not how.remove_below:
        return 0.0
    value, unit = amount_of(how.remove_below)
    scale, own = unit_of(geometry)
    known = {"px": 1.0, own: scale, **({"mm3": scale * MM3_PER_ML} if own == "mL" else {})}
    if unit not in known:
        what = {"mL": "a volume", "mm2": "a picture"}.get(own, "a picture whose spacing is not known")
        raise DataError(
            f"remove_below is {how.remove_below}, and the image is {what}; allowed are {', '.join(known)}. Give it in "
            "one of these."
        )
    return value / known[unit] * (1 - SLACK)


def still_calibrated(
    stretch: Mapping[str, Stretch], cleanings: Cleanings, *, noted: Callable[[str], None]
) -> dict[str, Stretch]:
    """Keep the calibration of sizes that cleaning leaves as they were; it was fitted on masks that are not cleaned."""
    if lost := [name for name in stretch if name in cleanings]:
        noted(f"The intervals of sizes of what is cleaned are not calibrated, but its members' own: {', '.join(lost)}.")
    return {name: of for name, of in stretch.items() if name not in cleanings}


def check_cleanable(name: str, cleanings: Cleanings, geometry: Geometry) -> None:
    """Refuse an image that can't be cleaned as asked, before it is segmented."""
    for how in cleanings.values():
        try:
            least_voxels(how, geometry)
        except DataError as error:
            raise DataError(f"{name}: {error}") from error


def _paint(part: np.ndarray, labels: Labels, index: int, where: Bool[np.ndarray, "*s"], *, value: int) -> None:
    """Make pixels of a label map a structure, or background."""
    if labels.task == "regions":
        part[index][where] = value
    else:
        part[where] = value * (index + 1)
