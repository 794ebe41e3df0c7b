"""Masks of largest expected Dice of several structures, of a picture at once or of a volume slab by slab."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from medsegdiff.errors import ShapeError
from medsegdiff.fusion.agreement import Agreement
from medsegdiff.fusion.cells import LEVELS, Ballots, check_probabilities
from medsegdiff.fusion.expected_dice import Tally
from medsegdiff.fusion.protocol import Raters
from medsegdiff.io.atomic import outer_axis, release
from medsegdiff.labels import Labels

SLAB = 1 << 21
"""Pixels of each member that are looked at together; simulated references are up to six times as many as members."""
LEAST = 0.49 / LEVELS
"""What is less probable counts as 0."""

ONE_RATER = Raters()


@dataclass(frozen=True)
class Slab:
    """Some pixels: what members say, and the marginals if there are."""

    votes: Bool[np.ndarray, "m s n"] | UInt8[np.ndarray, "m n"]
    """By structure; or label maps, where structures are counted from 1."""
    marginals: Float[np.ndarray, "s n"] | None
    structures: int

    @property
    def pixels(self) -> int:
        """How many there are."""
        return int(self.votes.shape[-1])

    @cached_property
    def agreement(self) -> Agreement:
        """Where label maps agree."""
        return Agreement.of(self.votes)

    def candidates(
        self, index: int, raters: Raters
    ) -> tuple[Int[np.ndarray, " c"], Ballots, Float[np.ndarray, " c"] | None]:
        """Find the pixels in which a member or a marginal tells of a structure: of many structures they are few."""
        maps = self.votes.ndim == 2
        ballots = self.agreement.ballots(index + 1) if maps else Ballots.of(self.votes[:, index])
        seen, told = ballots.some, None if self.marginals is None else self.marginals[index]
        if told is not None:
            check_probabilities(told)
            seen |= told > LEAST / raters.number  # the majority of R raters has a pixel with R p at most
        where = np.flatnonzero(seen)
        return where, ballots.at(where), None if told is None else told[where]


StructuresInSlabs = Callable[[], Iterable[Slab]]
"""Gives the pixels part by part, in the same order each time."""
Gains = Sequence[tuple[Int[np.ndarray, " _"], Float[np.ndarray, " _"]]]
"""By structure, what each of some pixels adds to its expected Dice; 0: it is not in the mask, as are all others."""


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
    for pixels, gains in _decided(slabs, raters):
        yield _owned(gains, pixels) == np.arange(1, len(gains) + 1)[:, None] if exclusive else _masks(gains, pixels)


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
    count = len(labels.structures)

    def slabs() -> Iterator[Slab]:
        for part in parts:
            drawn = members[part].reshape(len(members), *[count] * lead, -1)
            told = None if marginal is None else marginal[labels.foreground][part].astype(np.float32, copy=False)
            yield Slab(drawn > 0 if lead else drawn, None if told is None else told.reshape(count, -1), count)
            release(*(array for array in (members, mask, marginal) if array is not None))

    for part, (pixels, gains) in zip(parts, _decided(slabs, raters), strict=True):
        mask[part] = (_masks(gains, pixels) if lead else _owned(gains, pixels)).reshape(mask[part].shape)


def _decided(slabs: StructuresInSlabs, raters: Raters) -> Iterator[tuple[int, Gains]]:
    """Decide each structure by itself; say of each slab how many pixels it has, and what they gain."""
    tallies: list[Tally] = []
    for slab in slabs():
        for index in range(slab.structures):
            _, references, p, weights = _as_referenced(slab, index, raters)
            if index == len(tallies):
                tallies.append(Tally(weights=weights))
            tallies[index].add(references, p)
    rules = [tally.rule() for tally in tallies]
    for slab in slabs():
        gains = []
        for index, rule in enumerate(rules):
            where, references, p, _ = _as_referenced(slab, index, raters)
            gains.append((where, rule.gains(references, p)))
        yield slab.pixels, gains


def _as_referenced(
    slab: Slab, index: int, raters: Raters
) -> tuple[Int[np.ndarray, " c"], Ballots, Float[np.ndarray, " c"] | None, Float[np.ndarray, " m2"] | None]:
    """Let members and marginal of a structure tell of the reference, no more of one rater; and weigh them."""
    where, ballots, told = slab.candidates(index, raters)
    if raters.number == 1:
        return where, ballots, told, None
    references, weights = raters.references(ballots.votes)
    return where, Ballots.of(references), None if told is None else raters.probability(told), weights


def _masks(gains: Gains, pixels: int) -> Bool[np.ndarray, "s n"]:
    masks = np.zeros((len(gains), pixels), bool)
    for mask, (where, gain) in zip(masks, gains, strict=True):
        mask[where] = gain > 0
    return masks


def _owned(gains: Gains, pixels: int) -> UInt8[np.ndarray, " n"]:
    """Give each pixel to the structure that gains most by it, of equals to the first, counted from 1; or to none."""
    most, owner = np.zeros(pixels), np.zeros(pixels, np.uint8)
    for number, (where, gain) in enumerate(gains, start=1):
        larger = gain > most[where]
        won = where[larger]
        most[won], owner[won] = gain[larger], number
    return owner
