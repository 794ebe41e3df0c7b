"""Prepared cases in one memory-mapped file: what fits stays in memory, and all loading processes share it."""

from __future__ import annotations

import math
import mmap
import os
import shutil
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medsegdiff.data.placement import Placement
from medsegdiff.data.transforms import Prepared

DTYPES = {"image": np.float32, "mask": np.uint8, "ignored": np.uint8, "lost": np.uint8}
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
        """Make an empty file for so many bytes, in a folder of its own, which is gone when this object is."""
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


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # a forked process ends too, and must leave the file to the others
        shutil.rmtree(folder, ignore_errors=True)
