"""Pictures that are made strip by strip, so that memory stays bounded: how they are cut, and put together."""

from __future__ import annotations

import itertools
import math

import numpy as np
from jaxtyping import Shaped

from medsegdiff.io.atomic import make_room, release

STRIP = 1 << 23
"""Values in a strip, of all members and channels."""
NARROWEST = 16
"""Columns of a strip: as many values as processors take at once, so that none is rounded otherwise than at once."""
LARGE = 1 << 26
"""Bytes of an array above which it lies in a temporary file."""


def cut(native: tuple[int, int], *, per_pixel: int) -> list[slice]:
    """Cut columns into strips, as few as their size allows; only the last one is no multiple of the narrowest."""
    height, width = native
    step = max(1, STRIP // (height * per_pixel * NARROWEST)) * NARROWEST
    starts = range(0, max(width - NARROWEST, 0) + 1, step)
    return list(itertools.starmap(slice, itertools.pairwise([*starts, width])))


class Canvas:
    """Arrays of a whole picture by name, put together of strips; what is large lies in temporary files."""

    def __init__(self, width: int) -> None:
        """Start with none."""
        self.width = width
        self.arrays: dict[str, Shaped[np.ndarray, "..."]] = {}

    def paste(self, columns: slice, **parts: Shaped[np.ndarray, "..."] | None) -> None:
        """Take in some columns of arrays; an array that is whole already stays as it is."""
        for name, part in parts.items():
            if part is None:
                continue
            if part.shape[-1] == self.width:
                self.arrays[name] = part
                continue
            if name not in self.arrays:
                self.arrays[name] = _room((*part.shape[:-1], self.width), part.dtype)
            self.arrays[name][..., columns] = part
        release(*self.arrays.values())

    def __getitem__(self, name: str) -> Shaped[np.ndarray, "..."]:
        return self.arrays[name]


def _room(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Shaped[np.ndarray, "..."]:
    """Make room for an array; in a file column lies beside column, as strips are written."""
    if math.prod(shape) * dtype.itemsize <= LARGE:
        return np.empty(shape, dtype)
    return make_room(shape, dtype, outer=len(shape) - 1)
