"""Pictures that are made strip by strip, so that memory stays bounded: how they are cut, and put together."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Shaped

from medsegdiff.io.atomic import make_room, release

STRIP = 1 << 21
"""Values in a strip, of all members and channels: what a processor keeps at hand while it looks at them again."""
ON_DEVICE = 1 << 25
"""The same on a GPU, which small strips would keep waiting."""
LARGE = 1 << 26
"""Bytes of an array above which it lies in a temporary file."""
RELEASED = 1 << 27
"""Bytes after which what has been written leaves the memory of the process."""


def cut(native: tuple[int, int], *, per_pixel: int, most: int) -> list[slice]:
    """Cut rows into strips of so many values at most, or of one row."""
    height, width = native
    step = max(1, most // (width * per_pixel))
    return [slice(start, min(start + step, height)) for start in range(0, height, step)]


class Canvas:
    """Arrays of a whole picture by name, put together of strips; what is large lies in temporary files."""

    def __init__(self, height: int) -> None:
        """Start with none."""
        self.height, self._written = height, 0
        self.arrays: dict[str, Shaped[np.ndarray, "..."]] = {}

    def paste(self, rows: slice, **parts: Shaped[np.ndarray, "..."] | None) -> None:
        """Take in some rows of arrays; an array that is whole already stays as it is."""
        for name, part in parts.items():
            if part is None:
                continue
            if part.shape[-2] == self.height:
                self.arrays[name] = part
                continue
            if name not in self.arrays:
                self.arrays[name] = _room((*part.shape[:-2], self.height, part.shape[-1]), part.dtype)
            self.arrays[name][..., rows, :] = part
            self._written += part.nbytes
        if self._written > RELEASED or rows.stop == self.height:
            release(*self.arrays.values())
            self._written = 0

    def __getitem__(self, name: str) -> Shaped[np.ndarray, "..."]:
        return self.arrays[name]


def _room(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Shaped[np.ndarray, "..."]:
    """Make room for an array, in a file if it is large."""
    return np.empty(shape, dtype) if math.prod(shape) * dtype.itemsize <= LARGE else make_room(shape, dtype)
