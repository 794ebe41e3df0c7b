"""Votes of several samples, packed: pixels with the same votes share all computations, samples are summed by groups.

Where all samples agree, the label says it all; only the pixels on which they differ are named by codes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float, Int32, Integer, UInt8
from torch import Tensor

CODES = 256
"""Samples form groups that have at most so many combinations of votes, so that tables of sums stay in the cache."""
BLOCK = 1 << 18
"""Pixels that are packed together, which bounds what a volume needs in between."""
NAMEABLE = 2**62
"""Combinations of votes of all samples that one number can tell apart."""


@dataclass(frozen=True)
class Votes:
    """Distinct votes, how many pixels have each, and which each pixel has."""

    codes: Int32[Tensor, "g p"]
    """By group of samples: their labels, read as the digits of a number; the first patterns are the unanimous ones."""
    count: Float[Tensor, " p"]
    of_pixel: Int32[Tensor, " n"]
    num_samples: int
    num_labels: int

    @classmethod
    def of(cls, votes: Integer[Tensor, "m n"], num_labels: int, weight: Float[Tensor, " n"] | None = None) -> Votes:
        """Pack votes.

        Args:
            votes: Labels from 0 to ``num_labels`` − 1 by sample and pixel.
            num_labels: K.
            weight: How many pixels each column stands for; ``None``: one.

        Returns:
            The same votes, packed.
        """
        of_pixel, places, codes = _unanimous_and_others(votes, num_labels)
        count = torch.bincount(of_pixel + 1, minlength=num_labels + 1)[1:]
        codes, own, own_count = _distinct(codes, len(votes), num_labels)
        of_pixel.scatter_(0, places, own + num_labels)
        unanimous = torch.arange(num_labels).expand(len(votes), -1)
        codes = torch.cat([_coded(unanimous, num_labels), codes], dim=1).int()
        counts = torch.cat([count, own_count]).double()
        if weight is not None:
            counts = torch.bincount(of_pixel, weights=weight.double(), minlength=len(counts))
        return cls(codes, counts, of_pixel, len(votes), num_labels)

    @property
    def labels(self) -> UInt8[Tensor, "m p"]:
        """What each sample says in each pattern."""
        rows = []
        for codes, samples in self._groups():
            places = self.num_labels ** torch.arange(len(samples) - 1, -1, -1)
            rows.append(codes // places[:, None] % self.num_labels)
        return torch.cat(rows).to(torch.uint8)

    def sums(self, table: Float[Tensor, "c m k"]) -> Float[Tensor, "c p"]:
        r"""Sum what a table says to each sample's vote: :math:`\sum_j T_{c, j, D_j}` for each pattern D.

        Args:
            table: A value for each channel, sample and label.

        Returns:
            The sums, by channel and pattern.
        """
        total = torch.zeros(len(table), self.codes.shape[1], dtype=table.dtype)
        for codes, samples in self._groups():
            by_code = table[:, samples].flatten(1) @ _digits(len(samples), self.num_labels)
            for row, values in zip(total, by_code, strict=True):
                row += values.index_select(0, codes)
        return total

    def totals(self, weight: Float[Tensor, "c p"]) -> Float[Tensor, "c m k"]:
        """Sum weights of patterns by who votes for what: the transpose of `sums`.

        Args:
            weight: By channel and pattern.

        Returns:
            The weight that each sample's votes for each label have.
        """
        parts = []
        for codes, samples in self._groups():
            digits = _digits(len(samples), self.num_labels)
            by_code = torch.stack([torch.bincount(codes, row, digits.shape[1]) for row in weight])
            parts.append((by_code @ digits.T).unflatten(1, (len(samples), self.num_labels)))
        return torch.cat(parts, dim=1)

    def _groups(self) -> Iterator[tuple[Tensor, range]]:
        size = _group_size(self.num_labels)
        for start, codes in zip(range(0, self.num_samples, size), self.codes, strict=True):
            yield codes, range(start, min(start + size, self.num_samples))


def _group_size(num_labels: int) -> int:
    size = 1
    while num_labels > 1 and num_labels ** (size + 1) <= CODES:
        size += 1
    return size


def _kind(count: int) -> torch.dtype:
    """Choose numbers that count from 0 to ``count`` − 1 and take little room."""
    return torch.uint8 if count <= 256 else torch.int32


def _group_sizes(num_samples: int, num_labels: int) -> list[int]:
    size = _group_size(num_labels)
    return [min(size, num_samples - start) for start in range(0, num_samples, size)]


@cache
def _digits(num_samples: int, num_labels: int) -> Tensor:
    """Write which label each sample of a group votes for, as 0 and 1 (m*k, codes)."""
    code = torch.arange(num_labels**num_samples)
    place = num_labels ** torch.arange(num_samples - 1, -1, -1)
    said = code // place[:, None] % num_labels  # (m, codes)
    return (said[:, None] == torch.arange(num_labels)[:, None]).flatten(0, 1).double()


def _coded(votes: Tensor, num_labels: int) -> Tensor:
    """Read the labels of each group of samples as the digits of a number (g, n)."""
    size = _group_size(num_labels)
    codes = torch.zeros(math.ceil(len(votes) / size), votes.shape[1], dtype=_kind(num_labels**size))
    for code, rows in zip(codes.unbind(), votes.split(size), strict=True):
        for row in rows.unbind():
            code.mul_(num_labels).add_(row)
    return codes


def _unanimous_and_others(votes: Tensor, num_labels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Give each pixel's label, or −1 where samples differ; where that is; and the votes there, coded."""
    of_pixel, places, codes = torch.empty(votes.shape[1], dtype=torch.int32), [], []
    for start in range(0, votes.shape[1], BLOCK):
        part = votes[:, start : start + BLOCK].to(_kind(num_labels))
        differ = part.amin(dim=0) != part.amax(dim=0)
        of_pixel[start : start + BLOCK] = part[0].int().masked_fill(differ, -1)
        differing = differ.nonzero().flatten()
        places.append(differing + start)
        codes.append(torch.stack([row.index_select(0, differing) for row in _coded(part, num_labels)]))
    return of_pixel, torch.cat(places), torch.cat(codes, dim=1)


def _distinct(codes: Tensor, num_samples: int, num_labels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Find the distinct columns of codes, which of them each column is, and how often they occur."""
    num = codes.shape[1]
    if num_labels**num_samples > NAMEABLE:  # so many samples hardly ever agree with those of another pixel
        return codes, torch.arange(num, dtype=torch.int32), torch.ones(num, dtype=torch.int64)
    bases = [num_labels**size for size in _group_sizes(num_samples, num_labels)]
    joint = torch.zeros(num, dtype=torch.int32 if math.prod(bases) < 2**31 else torch.int64)  # sorts twice as fast
    for row, base in zip(codes, bases, strict=True):
        joint.mul_(base).add_(row)
    names, own, count = _counted(joint, math.prod(bases))
    columns = []
    for base in reversed(bases):
        columns.append(names % base)
        names = names // base
    return torch.stack(columns[::-1]), own.int(), count


def _counted(numbers: Tensor, limit: int) -> tuple[Tensor, Tensor, Tensor]:
    """Find distinct numbers below a limit: with a table if it is not too long, else by sorting."""
    if limit > 4 * len(numbers) + CODES:
        return torch.unique(numbers, return_inverse=True, return_counts=True)
    count = torch.bincount(numbers, minlength=limit)
    names = count.nonzero().flatten()
    rank = torch.empty(limit, dtype=torch.int32)
    rank[names] = torch.arange(len(names), dtype=torch.int32)
    return names, rank.index_select(0, numbers), count[names]
