"""Cells: pixels on which all samples vote alike and that are equally probable, counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from medsegdiff.errors import ConfigError, ShapeError

LEVELS = 1024
"""Steps in which probabilities are counted; a power of two, so that 16 bits suffice."""
BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
"""Votes of eight samples by the byte that holds them."""
Places = tuple[Int[np.ndarray, " c"], Int[np.ndarray, " c"]]
"""Pixels that may be in a mask, and the cell of each."""
WORDS = (2, 8)
"""Bytes of a number; votes of more than 64 samples are strings of bytes, which sort more slowly."""
TABLE = 1 << 21
"""Numbers below it are counted in a table; larger ones are sorted."""


@dataclass(frozen=True)
class Ballots:
    """What several samples say of pixels: the votes on each of them as one number."""

    numbers: Shaped[np.ndarray, " n"]
    sizes: Int[np.ndarray, " m"]
    """Pixels that each sample draws, of these and of others."""

    @classmethod
    def of(cls, votes: Bool[np.ndarray, "m n"]) -> Ballots:
        """Pack votes."""
        return cls(_packed(votes), np.array([np.count_nonzero(sample) for sample in votes], np.int64))

    @property
    def votes(self) -> Bool[np.ndarray, "m n"]:
        """Take them apart again."""
        packed = self.numbers.view(np.uint8).reshape(len(self.numbers), self.numbers.itemsize)
        return np.unpackbits(packed, axis=1, count=len(self.sizes)).T.astype(bool)

    @property
    def some(self) -> Bool[np.ndarray, " n"]:
        """Which pixels a sample draws."""
        return np.asarray(self.numbers != np.zeros(1, self.numbers.dtype))

    def at(self, where: Int[np.ndarray, " c"]) -> Ballots:
        """Leave other pixels out, but not from the sizes."""
        return Ballots(self.numbers[where], self.sizes)


@dataclass(frozen=True)
class Cells:
    """How many pixels are alike, for all that occur; sorted by pattern, then level."""

    patterns: Shaped[np.ndarray, " p"]
    """The votes of all samples, a bit each."""
    pattern: Int[np.ndarray, " c"]
    """Place in ``patterns``."""
    levels: Int[np.ndarray, " c"]
    """Probability in steps of 1/`LEVELS`; 0 where there is none."""
    count: Int[np.ndarray, " c"]

    @classmethod
    def of(cls, ballots: Ballots, marginal: Float[np.ndarray, " n"] | None) -> tuple[Cells, Places]:
        """Count the pixels that may be in a mask: those of some probability; and say in which cell each is."""
        where, patterns, levels = candidates(ballots, marginal)
        cells, cell = cls._counted(patterns, levels, np.ones(len(levels), np.int64))
        return cells, (where, cell)

    @classmethod
    def joined(cls, parts: Sequence[Cells]) -> Cells:
        """Put counts together."""
        if len(parts) == 1:
            return parts[0]
        patterns = np.concatenate([part.patterns[part.pattern] for part in parts])
        levels, count = (np.concatenate([getattr(part, name) for part in parts]) for name in ("levels", "count"))
        return cls._counted(patterns, levels, count)[0]

    @classmethod
    def _counted(
        cls, patterns: np.ndarray, levels: np.ndarray, count: np.ndarray
    ) -> tuple[Cells, Int[np.ndarray, " n"]]:
        names, own = _occurring(patterns)
        keys, cell = _occurring(_key(own, levels))
        total = np.bincount(cell, count, len(keys)).astype(np.int64)
        return cls(names, keys // (LEVELS + 1), keys % (LEVELS + 1), total), cell

    def places(self, ballots: Ballots, marginal: Float[np.ndarray, " n"] | None) -> Places:
        """Find the cells of pixels, which have been counted."""
        where, patterns, levels = candidates(ballots, marginal)
        key = _key(np.searchsorted(self.patterns, patterns), levels)
        return where, np.searchsorted(_key(self.pattern, self.levels), key)

    def summed(self, values: Float[np.ndarray, " m"]) -> Float[np.ndarray, " c"]:
        """Sum a value of each sample over those that draw the pixels of a cell."""
        packed = self.patterns.view(np.uint8).reshape(len(self.patterns), self.patterns.itemsize)
        padded = np.zeros(8 * self.patterns.itemsize)
        padded[: len(values)] = values
        total = np.zeros(len(packed))
        for column, eight in zip(packed.T, padded.reshape(-1, 8), strict=True):
            total += (BITS @ eight)[column]
        return total[self.pattern]


def candidates(
    ballots: Ballots, marginal: Float[np.ndarray, " n"] | None
) -> tuple[Int[np.ndarray, " c"], Shaped[np.ndarray, " c"], Int[np.ndarray, " c"]]:
    """Find the pixels that may be in a mask, their votes, and their levels."""
    numbers = ballots.numbers
    if marginal is None:
        where = np.flatnonzero(ballots.some)
        return where, numbers[where], np.zeros(len(where), np.int64)
    if numbers.shape != marginal.shape:
        raise ShapeError(f"The samples have {numbers.size} pixels, the marginal {marginal.size}; give one for each.")
    check_probabilities(marginal)
    levels = np.rint(marginal * LEVELS).astype(np.int64).clip(max=LEVELS)
    where = np.flatnonzero(levels)
    return where, numbers[where], levels[where]


def check_probabilities(marginal: Float[np.ndarray, " n"]) -> None:
    """Refuse what is no probability."""
    if marginal.size and not (marginal.min() >= 0 and marginal.max() <= 1.001):  # rounding of 16 bits
        raise ConfigError(
            f"The marginal goes from {marginal.min():g} to {marginal.max():g}; probabilities lie in 0 … 1. "
            "Give probabilities, not logits."
        )


def _occurring(values: Shaped[np.ndarray, " n"]) -> tuple[Shaped[np.ndarray, " p"], Int[np.ndarray, " n"]]:
    """Find the values that occur, sorted, and the place of each among them."""
    if values.dtype.kind not in "iu" or not len(values) or values.max() >= TABLE:
        return np.unique(values, return_inverse=True)
    occurs = np.bincount(values.astype(np.int64)) > 0  # NumPy 1 counts no unsigned numbers of 64 bits
    return np.flatnonzero(occurs).astype(values.dtype), (np.cumsum(occurs) - 1)[values]


def _key(pattern: np.ndarray, levels: np.ndarray) -> Int[np.ndarray, " n"]:
    return pattern * (LEVELS + 1) + levels


def _packed(votes: Bool[np.ndarray, "m n"]) -> Shaped[np.ndarray, " n"]:
    """Write the votes on each pixel as one number."""
    groups = np.split(votes.view(np.uint8), range(8, len(votes), 8))
    word = next((word for word in WORDS if len(groups) <= word), None)
    packed = np.zeros((votes.shape[1], word or len(groups)), np.uint8)
    for column, eight in zip(packed.T, groups, strict=False):
        bits = np.zeros(votes.shape[1], np.uint8)
        for place, row in zip(range(7, -1, -1), eight, strict=False):
            bits |= row << np.uint8(place)
        column[:] = bits
    return packed.view(f"u{word}" if word else f"S{len(groups)}")[:, 0]
