"""The way back from the model grid, some rows of the native grid at a time: bit by bit what `from_grid` gives."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from medsegdiff.data.placement import Placement
from medsegdiff.data.transforms import from_grid


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

    def rows(self, rows: slice) -> Float[Tensor, "n k r w"]:
        """Give some rows of the native grid."""
        source, (height, width) = self._source, self._native
        if not self._enlarged:
            return source[..., rows, :]
        restored = source.new_empty((*source.shape[:2], rows.stop - rows.start, width))
        for part, first, weights in _blend_of(source.shape[2], height).within(rows):
            self._along = {row: of for row, of in self._along.items() if row >= first}
            lines = [self._line(row) for row in range(first, first + weights.shape[1])]
            for into, *of in zip(restored[..., part, :], *lines, strict=True):  # at hand for what is added
                (line, weight), *below = zip(of, weights.to(source).T[..., None], strict=True)
                torch.mul(line, weight, out=into)
                for line, weight in below:
                    into.addcmul_(line, weight)  # rounded once, as in `F.interpolate`
        return restored

    def _line(self, row: int) -> Float[Tensor, "n k 1 w"]:
        """Give a row of the model grid at its native width."""
        if row not in self._along:
            self._along[row] = _resized(self._source[..., row : row + 1, :], (1, self._native[1]))
        return self._along[row]


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
