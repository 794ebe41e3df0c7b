"""The way back from the model grid, some rows of the native grid at a time: bit by bit what `from_grid` gives."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from medsegdiff.data.placement import Placement
from medsegdiff.data.transforms import from_grid
from medsegdiff.labels import first_largest

SLACK = 0.01
"""How far channels may be from the mean of all, relative to it, to be looked at: more than rounding makes of them."""


class Restoring:
    """Maps on their way to the native grid: along rows first, as `from_grid` does it, then down their columns.

    Rows that are asked for in their order are resized along once; only those of the model grid that are in use stay.
    """

    def __init__(self, values: Float[Tensor, "n k gh gw"], placement: Placement) -> None:
        (top, left), (height, width) = placement.offset, placement.resized
        if enlarged := placement.native[0] > height:
            self._source = values[..., top : top + height, left : left + width]
        else:  # it is no higher than the model grid
            self._source = from_grid(values, placement)
        self._native, self._enlarged = placement.native, enlarged
        self._along: dict[int, Float[Tensor, "n k 1 w"]] = {}
        self._near: tuple[int, list[int], list[Float[Tensor, "n c 1 w"]]] = (-1, [], [])

    def rows(self, rows: slice) -> Float[Tensor, "n k r w"]:
        """Give some rows of the native grid."""
        if not self._enlarged:
            return self._source[..., rows, :]
        restored = self._source.new_empty((*self._source.shape[:2], rows.stop - rows.start, self._native[1]))
        for part, first, weights in self._blend.within(rows):
            _blended(self._lines(first, weights.shape[1]), weights, into=restored[..., part, :])
        return restored

    def largest(self, rows: slice) -> UInt8[np.ndarray, "n r w"]:
        """Give the first largest channel in some rows; channels that are it nowhere near are not resized."""
        if not self._enlarged:
            return first_largest(self._source[..., rows, :].numpy())
        found = np.empty((len(self._source), rows.stop - rows.start, self._native[1]), np.uint8)
        for part, first, weights in self._blend.within(rows):
            channels, lines = self._candidates(first, weights.shape[1])
            room = lines[0].new_empty((*lines[0].shape[:2], part.stop - part.start, self._native[1]))
            _blended(lines, weights, into=room)
            found[:, part] = first_largest(room.numpy(), channels)
        return found

    @property
    def _blend(self) -> _Blend:
        return _blend_of(self._source.shape[2], self._native[0])

    def _candidates(self, first: int, count: int) -> tuple[list[int], list[Float[Tensor, "n c 1 w"]]]:
        """Find the channels that may be largest between some rows of the model grid, and give these rows of them.

        The largest channel of a pixel has the mean of all at least, and no channel more than it has around the pixel.
        """
        if self._near[0] != first:
            around = self._source[:, :, first : first + count]
            least = (1 - SLACK) * around.sum(dim=1).min() / around.shape[1]
            channels = (around.amax(dim=(0, 2, 3)) >= least).nonzero().flatten().tolist()
            channels = channels or list(range(around.shape[1]))  # of what is not a number
            self._near = (first, channels, [line[:, channels] for line in self._lines(first, count)])
        return self._near[1:]

    def _lines(self, first: int, count: int) -> list[Float[Tensor, "n k 1 w"]]:
        """Give rows of the model grid at their native width."""
        size = (1, self._native[1])
        self._along = {row: line for row, line in self._along.items() if row >= first}
        for row in range(first, first + count):
            if row not in self._along:
                self._along[row] = _resized(self._source[..., row : row + 1, :], size)
        return [self._along[row] for row in range(first, first + count)]


def _blended(
    lines: Sequence[Float[Tensor, "n k 1 w"]], weights: Float[Tensor, "r t"], *, into: Float[Tensor, "n k r w"]
) -> None:
    """Add lines as `F.interpolate` does, where each term is rounded once; one map by one, at hand for what is added."""
    for room, *of in zip(into, *lines, strict=True):
        (line, weight), *others = zip(of, weights.to(room).T[..., None], strict=True)
        torch.mul(line, weight, out=room)
        for line, weight in others:
            room.addcmul_(line, weight)


def _resized(values: Float[Tensor, "n k h w"], size: tuple[int, int]) -> Float[Tensor, "n k H W"]:
    return F.interpolate(values, size=size, mode="bilinear", antialias=True)


@dataclass(frozen=True)
class _Blend:
    """Of which rows of the model grid, one after the other, each row of the native grid is made."""

    firsts: np.ndarray
    weights: Float[Tensor, "h t"]

    def within(self, rows: slice) -> Iterator[tuple[slice, int, Float[Tensor, "r t"]]]:
        """Cut rows where the first row of the model grid changes; count them from the first that is asked for."""
        firsts = self.firsts[rows]
        cuts = [0, *(np.flatnonzero(np.diff(firsts)) + 1).tolist(), len(firsts)]
        for start, stop in itertools.pairwise(cuts):
            yield slice(start, stop), int(firsts[start]), self.weights[rows][start:stop]


@lru_cache(maxsize=4)
def _blend_of(source: int, native: int) -> _Blend:
    """Find the weights that resizing gives rows: those of each row in a picture that is 1 in it and 0 elsewhere."""
    spread = _resized(torch.eye(source)[None, None], (native, source))[0, 0]  # (native, source)
    used = spread.numpy() != 0
    firsts, lasts = used.argmax(axis=1), source - 1 - used[:, ::-1].argmax(axis=1)
    count = int((lasts - firsts).max()) + 1
    firsts = np.minimum(firsts, source - count)
    return _Blend(firsts, spread.gather(1, torch.from_numpy(firsts)[:, None] + torch.arange(count)))
