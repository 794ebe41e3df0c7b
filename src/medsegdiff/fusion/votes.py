"""Votes of several samples, packed: pixels with the same votes share all computations, samples are summed by groups.

Where all samples agree, the label says it all; only the pixels on which they differ are named by codes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float, Int, Int32, Integer, UInt8

CODES = 256
"""Samples form groups that have at most so many combinations of votes, so that tables of sums stay in the cache."""
BLOCK = 1 << 18
"""Pixels that are packed together, which bounds what a volume needs in between."""
NAMEABLE = 2**62
"""Combinations of votes of all samples that one number can tell apart."""


@dataclass(frozen=True)
class Votes:
    """Distinct votes, how many pixels have each, and which each pixel has."""

    codes: Int[np.ndarray, "g p"]
    """By group of samples: their labels, read as the digits of a number; the first patterns are the unanimous ones."""
    count: Float[np.ndarray, " p"]
    of_pixel: Int32[np.ndarray, " n"]
    num_samples: int
    num_labels: int

    @classmethod
    def of(
        cls, votes: Integer[np.ndarray, "m n"], num_labels: int, weight: Float[np.ndarray, " n"] | None = None
    ) -> Votes:
        """Pack votes.

        Args:
            votes: Labels from 0 to ``num_labels`` − 1 by sample and pixel.
            num_labels: K.
            weight: How many pixels each column stands for; ``None``: one.

        Returns:
            The same votes, packed.
        """
        of_pixel, count, places, codes = _unanimous_and_others(votes, num_labels)
        codes, own, own_count = _distinct(codes, len(votes), num_labels)
        of_pixel[places] = own + num_labels
        unanimous = np.broadcast_to(np.arange(num_labels), (len(votes), num_labels))
        codes = np.concatenate([_coded(unanimous, num_labels), codes], axis=1).astype(np.intp)  # which indexes at once
        counts: np.ndarray = np.concatenate([count, own_count]).astype(np.float64)
        if weight is not None:
            counts = np.bincount(of_pixel, weights=weight, minlength=len(counts))
        return cls(codes, counts, of_pixel, len(votes), num_labels)

    @property
    def labels(self) -> UInt8[np.ndarray, "m p"]:
        """What each sample says in each pattern."""
        rows = []
        for codes, samples in self._groups():
            places = self.num_labels ** np.arange(len(samples) - 1, -1, -1)
            rows.append(codes // places[:, None] % self.num_labels)
        return np.concatenate(rows).astype(np.uint8)

    def sums(self, table: Float[np.ndarray, "c m k"]) -> Float[np.ndarray, "c p"]:
        r"""Sum what a table says to each sample's vote: :math:`\sum_j T_{c, j, D_j}` for each pattern D.

        Args:
            table: A value for each channel, sample and label.

        Returns:
            The sums, by channel and pattern.
        """
        total = np.zeros((len(table), self.codes.shape[1]))
        for codes, samples in self._groups():
            by_code = table[:, samples].reshape(len(table), -1) @ _digits(len(samples), self.num_labels)
            for row, values in zip(total, by_code, strict=True):
                row += values[codes]
        return total

    def totals(self, weight: Float[np.ndarray, "c p"]) -> Float[np.ndarray, "c m k"]:
        """Sum weights of patterns by who votes for what: the transpose of `sums`.

        Args:
            weight: By channel and pattern.

        Returns:
            The weight that each sample's votes for each label have.
        """
        parts = []
        for codes, samples in self._groups():
            digits = _digits(len(samples), self.num_labels)
            by_code = np.stack([np.bincount(codes, row, digits.shape[1]) for row in weight])
            parts.append((by_code @ digits.T).reshape(len(weight), len(samples), self.num_labels))
        return np.concatenate(parts, axis=1)

    def _groups(self) -> Iterator[tuple[Int[np.ndarray, " p"], range]]:
        size = _group_size(self.num_labels)
        for start, codes in zip(range(0, self.num_samples, size), self.codes, strict=True):
            yield codes, range(start, min(start + size, self.num_samples))


def _group_size(num_labels: int) -> int:
    size = 1
    while num_labels > 1 and num_labels ** (size + 1) <= CODES:
        size += 1
    return size


def _kind(count: int) -> type[np.integer]:
    """Choose numbers that count from 0 to ``count`` − 1 and take little room."""
    return np.uint8 if count <= 256 else np.int32


def _group_sizes(num_samples: int, num_labels: int) -> list[int]:
    size = _group_size(num_labels)
    return [min(size, num_samples - start) for start in range(0, num_samples, size)]


@cache
def _digits(num_samples: int, num_labels: int) -> Float[np.ndarray, "mk codes"]:
    """Write which label each sample of a group votes for, as 0 and 1."""
    code = np.arange(num_labels**num_samples)
    place = num_labels ** np.arange(num_samples - 1, -1, -1)
    said = code // place[:, None] % num_labels  # (m, codes)
    by_label = said[:, None] == np.arange(num_labels)[:, None]  # (m, k, codes)
    return by_label.reshape(num_samples * num_labels, -1).astype(np.float64)


def _coded(votes: np.ndarray, num_labels: int) -> Integer[np.ndarray, "g n"]:
    """Read the labels of each group of samples as the digits of a number."""
    size = _group_size(num_labels)
    codes = np.zeros((math.ceil(len(votes) / size), votes.shape[1]), _kind(num_labels**size))
    for number, row in enumerate(votes):
        code = codes[number // size]
        code *= num_labels
        code += row.astype(code.dtype, copy=False)
    return codes


def _unanimous_and_others(votes: np.ndarray, num_labels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Give each pixel's label, or −1 where samples differ; how many have each; where they differ; the codes there."""
    of_pixel, count = np.empty(votes.shape[1], np.int32), np.zeros(num_labels, np.int64)
    places, codes = [], []
    for start in range(0, votes.shape[1], BLOCK):
        part = votes[:, start : start + BLOCK].astype(_kind(num_labels), copy=False)
        differ = part.min(axis=0) != part.max(axis=0)
        own = of_pixel[start : start + BLOCK]
        own[:] = part[0]
        own[differ] = -1
        count += np.bincount(own + 1, minlength=num_labels + 1)[1:]
        differing = np.flatnonzero(differ)
        places.append(differing + start)
        codes.append(_coded(part[:, differing], num_labels))
    return of_pixel, count, np.concatenate(places), np.concatenate(codes, axis=1)


def _distinct(codes: np.ndarray, num_samples: int, num_labels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the distinct columns of codes, which of them each column is, and how often they occur."""
    num = codes.shape[1]
    if num_labels**num_samples > NAMEABLE:  # so many samples hardly ever agree with those of another pixel
        return codes, np.arange(num, dtype=np.int32), np.ones(num, np.int64)
    bases = [num_labels**size for size in _group_sizes(num_samples, num_labels)]
    joint: np.ndarray = np.zeros(num, np.int32 if math.prod(bases) < 2**31 else np.int64)  # sorts twice as fast
    for row, base in zip(codes, bases, strict=True):
        joint *= base
        joint += row
    names, own, count = _counted(joint, math.prod(bases))
    columns = []
    for base in reversed(bases):
        columns.append(names % base)
        names = names // base
    return np.stack(columns[::-1]), own.astype(np.int32), count


def _counted(numbers: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find distinct numbers below a limit: with a table if it is not too long, else by sorting."""
    if limit > 4 * len(numbers) + CODES:
        return np.unique(numbers, return_inverse=True, return_counts=True)
    count = np.bincount(numbers, minlength=limit)
    names = np.flatnonzero(count)
    rank = np.empty(limit, np.int32)
    rank[names] = np.arange(len(names), dtype=np.int32)
    return names, rank[numbers], count[names]
