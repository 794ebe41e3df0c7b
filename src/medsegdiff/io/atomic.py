"""Files that are whole or not there at all, arrays that lie in temporary files, and the names that files may have."""

from __future__ import annotations

import json
import math
import mmap
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Write to a neighbour of a path and move it there when all went well; on any error nothing has changed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ending = "".join(path.suffixes[-2:]) if path.suffix.lower() == ".gz" else path.suffix  # .nii.gz is one ending
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name.removesuffix(ending)}-", suffix=ending)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        flush(part)
        part.chmod(0o644)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, atomically."""
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, indented, atomically. Not-a-number becomes ``null``."""
    write_text(path, to_json(value) + "\n")


def to_json(value: Any, *, indent: int | None = 2) -> str:
    """Write a value as JSON that every reader takes: what is not a finite number becomes ``null``."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False, default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and value - value != 0 else value


def flush(path: Path) -> None:
    """Wait until a file is on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


REFUSED = re.compile(r'[\\/:*?"<>|]+')
"""What some file system does not allow in a name."""


def file_name(name: str) -> str:
    """Make a name that every file system takes."""
    return REFUSED.sub("-", name)


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
