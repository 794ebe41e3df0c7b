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
WORD = 8
"""Bytes of a number; votes of more than 64 samples are strings of bytes, which sort more slowly."""


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
    def of(cls, votes: Bool[np.ndarray, "m n"], marginal: Float[np.ndarray, " n"] | None) -> Cells:
        """Count the pixels that may be in a mask: those of some probability."""
        _, patterns, levels = candidates(votes, marginal)
        return cls._counted(patterns, levels, np.ones(len(levels), np.int64))

    @classmethod
    def joined(cls, parts: Sequence[Cells]) -> Cells:
        """Put counts together."""
        patterns = np.concatenate([part.patterns[part.pattern] for part in parts])
        levels, count = (np.concatenate([getattr(part, name) for part in parts]) for name in ("levels", "count"))
        return cls._counted(patterns, levels, count)

    @classmethod
    def _counted(cls, patterns: np.ndarray, levels: np.ndarray, count: np.ndarray) -> Cells:
        names, own = np.unique(patterns, return_inverse=True)
        keys, cell = np.unique(_key(own, levels), return_inverse=True)
        total = np.bincount(cell, count, len(keys)).astype(np.int64)
        return cls(names, keys // (LEVELS + 1), keys % (LEVELS + 1), total)

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
    votes: Bool[np.ndarray, "m n"], marginal: Float[np.ndarray, " n"] | None
) -> tuple[Int[np.ndarray, " c"], Shaped[np.ndarray, " c"], Int[np.ndarray, " c"]]:
    """Find the pixels that may be in a mask, their votes as one number, and their levels."""
    if marginal is None:
        where = np.flatnonzero(votes.any(axis=0))
        return where, _packed(votes[:, where]), np.zeros(len(where), np.int64)
    if votes.shape[1:] != marginal.shape:
        raise ShapeError(f"The samples have {votes.shape[1]} pixels, the marginal {marginal.size}; give one for each.")
    if marginal.size and not (marginal.min() >= 0 and marginal.max() <= 1.001):  # rounding of 16 bits
        raise ConfigError(
            f"The marginal goes from {marginal.min():g} to {marginal.max():g}; probabilities lie in 0 … 1. "
            "Give probabilities, not logits."
        )
    levels = np.rint(marginal * LEVELS).astype(np.int64).clip(max=LEVELS)
    where = np.flatnonzero(levels)
    return where, _packed(votes[:, where]), levels[where]


def places_of(patterns: Shaped[np.ndarray, " n"], levels: Int[np.ndarray, " n"], cells: Cells) -> Int[np.ndarray, " n"]:
    """Find the cells of pixels, which have been counted."""
    pattern = np.searchsorted(cells.patterns, patterns)
    return np.searchsorted(_key(cells.pattern, cells.levels), _key(pattern, levels))


def _key(pattern: np.ndarray, levels: np.ndarray) -> Int[np.ndarray, " n"]:
    return pattern * (LEVELS + 1) + levels


def _packed(votes: Bool[np.ndarray, "m n"]) -> Shaped[np.ndarray, " n"]:
    """Write the votes on each pixel as one number."""
    rows = np.packbits(votes, axis=0).T  # (n, bytes)
    packed = np.zeros((len(rows), max(WORD, rows.shape[1])), np.uint8)
    packed[:, : rows.shape[1]] = rows
    return packed.view(np.uint64 if packed.shape[1] == WORD else f"S{packed.shape[1]}")[:, 0]
