"""What is counted of the members of an image: how much they agree, and how large each draws a structure.

They are looked at a part at a time, so that those of a volume need not fit into memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Int, UInt8

from medsegdiff.io.atomic import outer_axis, release
from medsegdiff.labels import Labels

SLAB = 1 << 22
"""Pixels of each member that are looked at together."""


def agreement_of(members: UInt8[np.ndarray, "m ..."], labels: Labels, *, slab: int = SLAB) -> float:
    """Measure how much members agree: the mean Dice of all pairs, over structures; two empty masks agree."""
    num = len(members)
    shared = np.zeros((len(labels.structures), num, num))
    for index, part in _slabs(members, labels, slab):
        masks = part.astype(np.float32)
        shared[index] += masks @ masks.T
    sizes = np.diagonal(shared, axis1=1, axis2=2)
    both = sizes[:, :, None] + sizes[:, None, :]
    found = np.where(both > 0, 2 * shared / np.maximum(both, 1), 1.0)
    first, second = np.triu_indices(num, k=1)
    return float(found[:, first, second].mean()) if num > 1 else 1.0


def sizes_of(members: UInt8[np.ndarray, "m ..."], labels: Labels, *, slab: int = SLAB) -> Int[np.ndarray, "m n"]:
    """Count the pixels of each member, by structure.

    Args:
        members: Label maps, as `Labels` has them.
        labels: What they hold.
        slab: Pixels of each member that are looked at together.

    Returns:
        Pixels, or voxels, of m members and n structures.
    """
    sizes = np.zeros((len(members), len(labels.structures)), np.int64)
    for index, part in _slabs(members, labels, slab):
        sizes[:, index] += part.sum(axis=1, dtype=np.int64)
    return sizes


def _slabs(
    members: UInt8[np.ndarray, "m ..."], labels: Labels, slab: int
) -> Iterator[tuple[int, Bool[np.ndarray, "m n"]]]:
    """Cut members along the axis that is read fastest; give each structure of a part, a row for each member."""
    lead = 2 if labels.task == "regions" else 1
    axis = lead + outer_axis(members[(0,) * lead])
    length = members.shape[axis]
    step = max(1, slab * length // max(1, members.size // len(members)))
    for start in range(0, length, step):
        part = members[(slice(None),) * axis + (slice(start, start + step),)]
        for index in range(len(labels.structures)):
            yield index, np.stack([labels.mask(member, index).ravel() for member in part]) > 0
        release(members)
