"""How much the members of an ensemble agree."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from medsegdiff.io.mapped import outer_axis, release
from medsegdiff.labels import Labels

PART = 1 << 22
"""Pixels of each member that are looked at together."""


def agreement_of(members: UInt8[np.ndarray, "m ..."], labels: Labels) -> float:
    """Measure how much members agree: the mean Dice of all pairs, over structures; two empty masks agree.

    Members are looked at a part at a time, so that those of a volume need not fit into memory.
    """
    lead = 2 if labels.task == "regions" else 1
    axis = lead + outer_axis(members[(0,) * lead])
    num, length, count = len(members), members.shape[axis], len(labels.structures)
    step = max(1, PART * length // max(1, members.size // num))
    shared = np.zeros((count, num, num))
    for start in range(0, length, step):
        part = members[(slice(None),) * axis + (slice(start, start + step),)]
        for index in range(count):
            masks = np.stack([labels.mask(member, index).ravel() for member in part]).astype(np.float32)
            shared[index] += masks @ masks.T
        release(members)
    sizes = np.diagonal(shared, axis1=1, axis2=2)
    both = sizes[:, :, None] + sizes[:, None, :]
    found = np.where(both > 0, 2 * shared / np.maximum(both, 1), 1.0)
    first, second = np.triu_indices(num, k=1)
    return float(found[:, first, second].mean()) if num > 1 else 1.0
