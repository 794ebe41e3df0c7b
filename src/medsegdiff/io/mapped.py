"""Arrays that lie in temporary files, so that what is larger than the memory can be filled and read part by part."""

from __future__ import annotations

import math
import mmap
import os
import tempfile

import numpy as np
from jaxtyping import Shaped


def make_room(shape: tuple[int, ...], dtype: np.dtype[np.generic], *, outer: int = 0) -> Shaped[np.ndarray, "..."]:
    """Make an array of zeros in a file that is gone when nobody uses it any more."""
    stored = (shape[outer], *shape[:outer], *shape[outer + 1 :])
    num_bytes = math.prod(shape) * dtype.itemsize
    with tempfile.TemporaryFile() as file:
        try:
            file.truncate(num_bytes)
            if hasattr(os, "posix_fallocate"):  # else a full disk would end the process without a word
                os.posix_fallocate(file.fileno(), 0, num_bytes)
        except OSError as error:
            where = f"{tempfile.gettempdir()} has no room for {num_bytes / 1e9:.1f} GB of results; set TMPDIR"
            raise OSError(error.errno, where) from error
        return np.moveaxis(np.memmap(file, dtype=dtype, mode="r+", shape=stored), 0, outer)


def release(*arrays: np.ndarray) -> None:
    """Let go of the memory that an array in a file has taken; what is in it is read anew when it is needed."""
    for array in arrays:
        mapped = getattr(array, "_mmap", None)  # where numpy keeps it
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)


def outer_axis(array: np.ndarray) -> int:
    """Find the axis along which an array is read fastest part by part."""
    return int(np.argmax(np.abs(array.strides)))
