"""Prepared cases in one memory-mapped file: what fits stays in memory, and all loading processes share it."""

from __future__ import annotations

import math
import mmap
import os
import shutil
import socket
import tempfile
import weakref
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from medsegdiff.data.placement import Placement
from medsegdiff.data.transforms import Prepared
from medsegdiff.errors import ConfigError

DTYPES = {"image": np.float32, "mask": np.uint8, "ignored": np.uint8, "lost": np.uint8}
BEGINS, CASES, LOCK = f"medsegdiff-{socket.gethostname()}-", "cases", "lock"
"""How the folder of a file begins, of this machine alone: not all file systems keep locks between machines."""
ALIGNED = 64
"""Cases begin at multiples of this many bytes."""


@dataclass(frozen=True)
class _Record:
    """Where the parts of a case lie in the file."""

    placement: Placement
    parts: dict[str, tuple[int, tuple[int, ...]]]
    """Name → offset in bytes, and shape."""


class CaseFile:
    """Writes cases one after the other, and gives them back as tensors that lie in the file.

    Only the process that made it writes; what is changed in a tensor stays in the process that changed it.
    """

    def __init__(self, room: float, *, folder: str | None = None) -> None:
        """Make an empty file for so many bytes, in a folder of its own, which is gone when this object is.

        The folders of processes that were killed go now.
        """
        self.room, self._owner, self._end = room, os.getpid(), 0
        inner = _made_in(folder)
        _sweep(inner.parent)
        self.path, self._records = inner / CASES, dict[str, _Record]()
        _hold(inner)
        self.path.touch()  # from now on it would be swept, if its lock were free
        self._map: mmap.mmap | None = None
        weakref.finalize(self, _remove, inner, self._owner)

    def __contains__(self, name: object) -> bool:
        return name in self._records

    def __len__(self) -> int:
        return len(self._records)

    def add(self, case: Prepared, name: str) -> bool:
        """Keep a case, if there is room."""
        tensors = {part: tensor for part in DTYPES if (tensor := getattr(case, part)) is not None}
        size = sum(tensor.nbytes for tensor in tensors.values()) + ALIGNED
        if os.getpid() != self._owner or size > min(self.room, shutil.disk_usage(self.path.parent).free - 1e9):
            return False
        parts = {}
        with self.path.open("ab") as file:
            file.write(bytes(-file.tell() % ALIGNED))
            for part, tensor in tensors.items():
                parts[part] = file.tell(), tuple(tensor.shape)
                file.write(np.ascontiguousarray(tensor.numpy()).data)
            self._end = file.tell()
        self.room -= size
        self._records[name] = _Record(case.placement, parts)
        return True

    def __getitem__(self, name: str) -> Prepared:
        record = self._records[name]
        parts = {
            part: torch.from_numpy(np.frombuffer(self._mapped(), DTYPES[part], math.prod(shape), offset).reshape(shape))
            for part, (offset, shape) in record.parts.items()
        }
        image, mask, ignored, lost = (parts.get(part) for part in DTYPES)
        assert image is not None
        return Prepared(name, image, mask, record.placement, ignored, lost)

    def _mapped(self) -> mmap.mmap:
        """Map the file as far as it has been written: privately, so that nobody can spoil it.

        One map for all cases: mapping each anew (0.7 ms) takes longer than copying it (0.2 ms).
        """
        if self._map is None or len(self._map) < self._end:
            with self.path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        return self._map

    def __getstate__(self) -> dict[str, Any]:
        """Leave the map behind when a loading process is started afresh: it maps the file anew."""
        return self.__dict__ | {"_map": None}


def _made_in(place: str | None) -> Path:
    """Make a folder in another, or in the system's for temporary files."""
    try:
        return Path(tempfile.mkdtemp(prefix=BEGINS, dir=place))
    except OSError as error:
        if place is None:
            raise
        raise ConfigError(
            f"data.cache_dir is {place}, where prepared cases can't be kept ({error.strerror}). Name a folder on a "
            "local disk, or set data.cache_dir=null."
        ) from error


_held: dict[Path, FileLock] = {}
"""Locks of the folders in use: in a forked process they are never let go of, which would free those of the owner."""


def _hold(folder: Path) -> None:
    """Lock a folder until it is removed or the process dies; where a file system has no locks, nobody sweeps."""
    _held[folder] = lock = FileLock(folder / LOCK, timeout=0, thread_local=False)
    with suppress(OSError, NotImplementedError):
        lock.acquire()


def _sweep(place: Path) -> None:
    """Remove the folders of this user whose owner lives no more."""
    for folder in place.glob(f"{BEGINS}*"):
        lock = FileLock(folder / LOCK, timeout=0, thread_local=False)
        with suppress(OSError, NotImplementedError, Timeout):
            if folder in _held or not _is_own(folder) or not (folder / CASES).exists():
                continue
            with lock:
                shutil.rmtree(folder, ignore_errors=True)


def _is_own(folder: Path) -> bool:
    return not hasattr(os, "getuid") or folder.lstat().st_uid == os.getuid()


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # a forked process ends too, and must leave the file to the others
        _held.pop(folder).release()
        shutil.rmtree(folder, ignore_errors=True)
