"""Choosing members among candidates: those that stand for all are kept, what all of them say stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import UInt8

from medsegdiff.fusion.herding import herd
from medsegdiff.inference.members import Choice, distances_of, sizes_of
from medsegdiff.inference.parts import Part
from medsegdiff.io.atomic import make_room, outer_axis, release
from medsegdiff.labels import Labels

RELEASED = 16
"""Slices after which what has been copied leaves the memory of the process."""


def choose(part: Part, labels: Labels, *, count: int) -> Part:
    """Keep so many candidates as members, by kernel herding on 1 − IoU, the mean over structures.

    Mask, probability, uncertainty and the sizes of `Choice` are those of all candidates.
    """
    candidates = part.members
    if len(candidates) <= count:
        return part
    numbers = herd(distances_of(candidates, labels), count)
    sensitivity, specificity = (of if of is None else of[numbers] for of in (part.sensitivity, part.specificity))
    return replace(
        part,
        members=_kept(candidates, numbers, lead=2 if labels.task == "regions" else 1),
        choice=Choice(tuple(numbers), sizes_of(candidates, labels)),
        sensitivity=sensitivity,
        specificity=specificity,
    )


def _kept(candidates: UInt8[np.ndarray, "c ..."], numbers: Sequence[int], *, lead: int) -> UInt8[np.ndarray, "m ..."]:
    """Copy pictures; of volumes, which lie in a file, slice by slice into another."""
    if candidates.ndim - lead == 2:
        return candidates[list(numbers)]
    axis = lead + outer_axis(candidates[(0,) * lead])
    kept = make_room((len(numbers), *candidates.shape[1:]), candidates.dtype, outer=axis)
    for index in range(candidates.shape[axis]):
        place = (slice(None),) * (axis - 1) + (index,)
        for member, number in enumerate(numbers):
            kept[member][place] = candidates[number][place]
        if index % RELEASED == RELEASED - 1:
            release(kept, candidates)
    release(kept, candidates)
    return kept
