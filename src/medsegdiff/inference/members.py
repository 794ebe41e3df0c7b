"""What is counted of the members of an image: how much they agree and differ, how large each draws a structure.

They are looked at a part at a time, so that those of a volume need not fit into memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from medsegdiff.fusion.agreement import Agreement
from medsegdiff.io.atomic import outer_axis, release
from medsegdiff.labels import Labels
from medsegdiff.metrics.pairs import dice_of, iou_of, mean_pair

SLAB = 1 << 25
"""Pixels of all members that are looked at together; sums of so many masks are exact in float32."""


@dataclass(frozen=True)
class Choice:
    """How members were chosen among candidates, and what is known of all of them."""

    numbers: tuple[int, ...]
    """By member: its number among the candidates, which its noise follows from."""
    sizes: Int[np.ndarray, "c n"]
    """Pixels, or voxels, of c candidates and n structures."""


def agreement_of(members: UInt8[np.ndarray, "m ..."], labels: Labels, *, slab: int = SLAB) -> float:
    """Measure how much members agree: the mean Dice of all pairs, over structures; two empty masks agree."""
    return float(np.mean([mean_pair(dice_of(common)) for common in shared_pixels(members, labels, slab=slab)]))


def distances_of(members: UInt8[np.ndarray, "m ..."], labels: Labels, *, slab: int = SLAB) -> Float[np.ndarray, "m m"]:
    """Compute 1 − IoU of every two members, the mean over structures; two empty masks have distance 0.

    Args:
        members: Label maps, as `Labels` has them.
        labels: What they hold.
        slab: Pixels of all members that are looked at together.

    Returns:
        In [0, 1], with zeros on the diagonal.
    """
    return np.mean([1 - iou_of(common) for common in shared_pixels(members, labels, slab=slab)], axis=0)


def shared_pixels(
    maps: Sequence[UInt8[np.ndarray, "..."]] | UInt8[np.ndarray, "m ..."], labels: Labels, *, slab: int = SLAB
) -> Float[np.ndarray, "n m m"]:
    """Count the pixels that every two label maps share, by structure; sizes on the diagonal."""
    shared = np.zeros((len(labels.structures), len(maps), len(maps)))
    for index, alike, part in _slabs(maps, labels, slab):
        masks = part.astype(np.float32)
        shared[index] += alike + masks @ masks.T
    return shared


def sizes_of(members: UInt8[np.ndarray, "m ..."], labels: Labels, *, slab: int = SLAB) -> Int[np.ndarray, "m n"]:
    """Count the pixels of each member, by structure.

    Args:
        members: Label maps, as `Labels` has them.
        labels: What they hold.
        slab: Pixels of all members that are looked at together.

    Returns:
        Pixels, or voxels, of m members and n structures.
    """
    sizes = np.zeros((len(members), len(labels.structures)), np.int64)
    for index, alike, part in _slabs(members, labels, slab):
        sizes[:, index] += alike + np.count_nonzero(part, axis=1)
    return sizes


def _slabs(
    maps: Sequence[UInt8[np.ndarray, "..."]] | UInt8[np.ndarray, "m ..."], labels: Labels, slab: int
) -> Iterator[tuple[int, int, Bool[np.ndarray, "m n"]]]:
    """Cut label maps along the axis that is read fastest, and look at each structure of a part.

    Gives on how many pixels all maps see it, and its masks, a row for each map, on those where maps differ: of most
    images they are few.
    """
    lead = 1 if labels.task == "regions" else 0
    axis = lead + outer_axis(maps[0][(0,) * lead])
    length = maps[0].shape[axis]
    step = max(1, slab * length // max(1, len(maps) * maps[0].size))
    count = len(labels.structures)
    for start in range(0, length, step):
        cut = (slice(None),) * axis + (slice(start, start + step),)
        part = np.stack([one[cut].reshape(*[count] * lead, -1) for one in maps])
        for first, labelled in enumerate(part.swapaxes(0, 1) if lead else [part]):
            agreement = Agreement.of(labelled)
            alike = np.bincount(agreement.agreed, minlength=256)
            for label in range(1, 2 if lead else 1 + count):
                yield first + label - 1, int(alike[label]), agreement.differing == label
        for one in [maps] if isinstance(maps, np.ndarray) else maps:
            release(one)
