"""Masks of largest expected Dice of several structures, of a picture at once or of a volume slab by slab."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from medsegdiff.errors import ShapeError
from medsegdiff.fusion.expected_dice import Tally
from medsegdiff.fusion.protocol import protocol_probability, simulated_references
from medsegdiff.io.atomic import outer_axis, release
from medsegdiff.labels import Labels

SLAB = 1 << 20
"""Pixels of each member that are looked at together; simulated references are up to six times as many as members."""

StructuresInSlabs = Callable[[], Iterable[tuple[Bool[np.ndarray, "m s n"], Float[np.ndarray, "s n"] | None]]]
"""Gives the pixels part by part, in the same order each time: what members say, and the marginals if there are."""


def decide_structures(
    slabs: StructuresInSlabs, *, exclusive: bool, raters: int = 1
) -> Iterator[Bool[np.ndarray, "s n"]]:
    """Decide on the mask of largest expected Dice of each structure.

    Args:
        slabs: Read twice: to count, and to decide. The background is no structure.
        exclusive: Whether a pixel has one structure at most: where several claim it, the one that gains most by it
            has it, of equals the first.
        raters: How many make the reference by majority, a tie is foreground.

    Yields:
        Masks of each slab, by structure.
    """
    tallies: list[Tally] = []
    for votes, marginals in slabs():
        tallies = tallies or [Tally() for _ in range(votes.shape[1])]
        for index, tally in enumerate(tallies):
            tally.add(*_as_referenced(votes, marginals, index, raters))
    rules = [tally.rule() for tally in tallies]
    for votes, marginals in slabs():
        gains = np.stack(
            [rule.gains(*_as_referenced(votes, marginals, index, raters)) for index, rule in enumerate(rules)]
        )
        yield _apart(gains) if exclusive else gains > 0


def decide_volume(
    members: UInt8[np.ndarray, "m ..."],
    labels: Labels,
    *,
    mask: UInt8[np.ndarray, "..."],
    marginal: Float[np.ndarray, "k *s"] | None = None,
    raters: int = 1,
    slab: int = SLAB,
    by_rows: bool = False,
) -> None:
    """Decide on the masks of largest expected Dice of a whole volume, which need not fit into memory.

    Args:
        members: Label map of each member, as `Labels` has them.
        labels: What the values and the channels are.
        mask: Filled with the label map.
        marginal: Calibrated probability of each channel, 0 … 1; ``None``: the share of members.
        raters: How many make the reference.
        slab: Voxels that are looked at together.
        by_rows: Whether pixels come in the order of their indices, however they lie in memory: of some that are equally
            good, the first ones are taken.

    Raises:
        ShapeError: If the grids differ.
    """
    lead = int(labels.task == "regions")
    shape = members.shape[1 + lead :]
    wanted = (len(labels.classes), *shape)
    if mask.shape != members.shape[1:] or (marginal is not None and marginal.shape != wanted):
        raise ShapeError(
            f"The mask is {mask.shape}, the marginal {None if marginal is None else marginal.shape}; members "
            f"{members.shape} of {len(labels.classes)} classes need a mask {members.shape[1:]} and a marginal "
            f"{wanted}. Give all on one grid."
        )
    axis = 0 if by_rows else outer_axis(members[(0,) * (1 + lead)])
    step = max(1, slab * shape[axis] // max(1, members[(0,) * (1 + lead)].size))
    inner = (slice(None),) * (len(shape) - 1 - axis)
    parts: list[tuple[Any, ...]] = [(..., slice(start, start + step), *inner) for start in range(0, shape[axis], step)]

    def slabs() -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        for part in parts:
            drawn = np.stack([labels.masks(member) for member in members[part]]).astype(bool)
            told = None if marginal is None else marginal[part][labels.foreground].astype(np.float32)
            yield drawn.reshape(*drawn.shape[:2], -1), None if told is None else told.reshape(len(told), -1)
            release(*(array for array in (members, mask, marginal) if array is not None))

    for part, masks in zip(parts, decide_structures(slabs, exclusive=labels.exclusive, raters=raters), strict=True):
        mask[part] = _label_map(masks, labels).reshape(mask[part].shape)


def _as_referenced(
    votes: Bool[np.ndarray, "m s n"], marginals: Float[np.ndarray, "s n"] | None, index: int, raters: int
) -> tuple[Bool[np.ndarray, "m2 n"], Float[np.ndarray, " n"] | None]:
    """Let members and marginal of a structure tell of the reference, no more of one rater."""
    p = None if marginals is None else protocol_probability(marginals[index], raters)
    return simulated_references(votes[:, index], raters=raters), p


def _apart(gains: Float[np.ndarray, "s n"]) -> Bool[np.ndarray, "s n"]:
    return (gains > 0) & (gains.argmax(axis=0) == np.arange(len(gains))[:, None])


def _label_map(masks: Bool[np.ndarray, "s n"], labels: Labels) -> UInt8[np.ndarray, "..."]:
    if labels.task == "regions":
        return masks.astype(np.uint8)
    found = np.zeros(masks.shape[1], np.uint8)
    for index, own in enumerate(masks, start=1):
        found[own] = index
    return found
