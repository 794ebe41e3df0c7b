"""Masks of largest expected Dice of several structures, of a picture at once or of a volume slab by slab."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from medsegdiff.errors import ShapeError
from medsegdiff.fusion.expected_dice import Tally
from medsegdiff.fusion.protocol import Raters
from medsegdiff.io.atomic import outer_axis, release
from medsegdiff.labels import Labels

SLAB = 1 << 20
"""Pixels of each member that are looked at together; simulated references are up to six times as many as members."""

ONE_RATER = Raters()
StructuresInSlabs = Callable[[], Iterable[tuple[Bool[np.ndarray, "m s n"], Float[np.ndarray, "s n"] | None]]]
"""Gives the pixels part by part, in the same order each time: what members say, and the marginals if there are."""


def decide_structures(
    slabs: StructuresInSlabs, *, exclusive: bool, raters: Raters = ONE_RATER
) -> Iterator[Bool[np.ndarray, "s n"]]:
    """Decide on the mask of largest expected Dice of each structure.

    Args:
        slabs: Read twice: to count, and to decide. The background is no structure.
        exclusive: Whether a pixel has one structure at most: where several claim it, the one that gains most by it
            has it, of equals the first.
        raters: How the reference is made of raters.

    Yields:
        Masks of each slab, by structure.
    """
    tallies: list[Tally] = []
    for votes, marginals in slabs():
        of_structure = _as_referenced(votes, marginals, raters)
        tallies = tallies or [Tally(weights=weights) for _, _, weights in of_structure]
        for tally, (references, p, _) in zip(tallies, of_structure, strict=True):
            tally.add(references, p)
    rules = [tally.rule() for tally in tallies]
    for votes, marginals in slabs():
        of_structure = _as_referenced(votes, marginals, raters)
        gains = np.stack([rule.gains(of, p) for rule, (of, p, _) in zip(rules, of_structure, strict=True)])
        yield _apart(gains) if exclusive else gains > 0


def decide_volume(
    members: UInt8[np.ndarray, "m ..."],
    labels: Labels,
    *,
    mask: UInt8[np.ndarray, "..."],
    marginal: Float[np.ndarray, "k *s"] | None = None,
    raters: Raters = ONE_RATER,
    slab: int = SLAB,
    by_rows: bool = False,
) -> None:
    """Decide on the masks of largest expected Dice of a whole volume, which need not fit into memory.

    Args:
        members: Label map of each member, as `Labels` has them.
        labels: What the values and the channels are.
        mask: Filled with the label map.
        marginal: Calibrated probability of each channel, 0 … 1; ``None``: the share of members.
        raters: How the reference is made of raters.
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
    votes: Bool[np.ndarray, "m s n"], marginals: Float[np.ndarray, "s n"] | None, raters: Raters
) -> list[tuple[Bool[np.ndarray, "m2 n"], Float[np.ndarray, " n"] | None, Float[np.ndarray, " m2"] | None]]:
    """Let members and marginal of each structure tell of the reference, no more of one rater; and weigh them."""
    found = []
    for index in range(votes.shape[1]):
        references, weights = raters.references(votes[:, index])
        found.append((references, None if marginals is None else raters.probability(marginals[index]), weights))
    return found


def _apart(gains: Float[np.ndarray, "s n"]) -> Bool[np.ndarray, "s n"]:
    return (gains > 0) & (gains.argmax(axis=0) == np.arange(len(gains))[:, None])


def _label_map(masks: Bool[np.ndarray, "s n"], labels: Labels) -> UInt8[np.ndarray, "..."]:
    if labels.task == "regions":
        return masks.astype(np.uint8)
    found = np.zeros(masks.shape[1], np.uint8)
    for index, own in enumerate(masks, start=1):
        found[own] = index
    return found
