"""Prepared cases in one memory-mapped file: what fits stays in memory, and all loading processes share it."""

from __future__ import annotations

import math
import mmap
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medsegdiff.data.transforms import Placement, Prepared

ALIGNED = 64
"""Records begin at multiples of this many bytes."""


@dataclass(frozen=True)
class _Record:
    """Where a case lies in the file."""

    offset: int
    image: tuple[int, ...]
    mask: tuple[int, ...] | None
    ignored: tuple[int, ...] | None
    placement: Placement


class CaseFile:
    """Writes cases one after the other, and gives them back as tensors that lie in the file.

    Only the process that made it writes; what is changed in a tensor stays in the process that changed it.
    """

    def __init__(self, room: float, *, folder: str | None = None) -> None:
        """Make an empty file in a folder of its own, which is gone when this object is."""
        self.room, self._owner, self._end = room, os.getpid(), 0
        inner = Path(tempfile.mkdtemp(prefix="medsegdiff-", dir=folder))
        self.path, self._records = inner / "cases", dict[str, _Record]()
        self.path.touch()
        self._map: mmap.mmap | None = None
        weakref.finalize(self, _remove, inner, self._owner)

    def __contains__(self, name: object) -> bool:
        return name in self._records

    def __len__(self) -> int:
        return len(self._records)

    def add(self, case: Prepared, name: str) -> bool:
        """Keep a case."""
        parts = [part for part in (case.image, case.mask, case.ignored) if part is not None]
        size = sum(part.nbytes for part in parts) + ALIGNED
        if os.getpid() != self._owner or size > min(self.room, shutil.disk_usage(self.path.parent).free - 1e9):
            return False
        shapes = tuple(case.image.shape), _shape(case.mask), _shape(case.ignored)
        record = _Record(self._end, *shapes, case.placement)
        with self.path.open("r+b") as file:
            file.seek(self._end)
            for part in parts:
                file.write(np.ascontiguousarray(part.numpy()).data)
            self._end = -(-file.tell() // ALIGNED) * ALIGNED
            file.truncate(self._end)
        self.room -= size
        self._records[name] = record
        return True

    def __getitem__(self, name: str) -> Prepared:
        record = self._records[name]
        parts = self._parts(record)
        image = next(parts)
        mask = None if record.mask is None else next(parts)
        ignored = None if record.ignored is None else next(parts)
        return Prepared(name, image, mask, record.placement, ignored)

    def _parts(self, record: _Record) -> Iterator[Tensor]:
        offset = record.offset
        shapes = ((record.image, np.float32), (record.mask, np.uint8), (record.ignored, np.uint8))
        for shape, dtype in shapes:
            if shape is not None:
                values = np.frombuffer(self._mapped(), dtype, math.prod(shape), offset).reshape(shape)
                offset += values.nbytes
                yield torch.from_numpy(values)

    def _mapped(self) -> mmap.mmap:
        """Map the file as far as it has been written: privately, so that nobody can spoil it."""
        if self._map is None or len(self._map) < self._end:
            with self.path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        return self._map

    def __getstate__(self) -> dict[str, Any]:
        """Leave the map behind when a loading process is started afresh: it maps the file anew."""
        return self.__dict__ | {"_map": None}


def _shape(part: Tensor | None) -> tuple[int, ...] | None:
    return None if part is None else tuple(part.shape)


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # a forked process ends too, and must leave the file to the others
        shutil.rmtree(folder, ignore_errors=True)
