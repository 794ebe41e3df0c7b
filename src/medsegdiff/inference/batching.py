"""How many masks are denoised at once: fewer where memory does not suffice, more where a GPU has room for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from medsegdiff.errors import OutOfMemoryError, memory_worded

Made = TypeVar("Made")

MOST = 256
"""Masks at once, at most, unless it is asked for more: larger batches gain nothing."""
SHARE = 0.5
"""Of the free memory of a GPU that a batch may take: others may want some, and what fits is an estimate."""


class BatchSize:
    """The number of masks that go through a network together."""

    def __init__(self, size: int, device: torch.device, *, asked: bool) -> None:
        """Start with a size; one that was ``asked`` for grows no more."""
        self.size, self.device = size, device
        self._open = device.type == "cuda" and not asked

    def halve(self) -> bool:
        """Take half as many; tell whether there was more than one."""
        self._open = False
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        before, self.size = self.size, max(1, self.size // 2)
        return before > 1

    @contextmanager
    def watched(self, masks: int) -> Iterator[None]:
        """Watch a first batch of so many masks; by what it took, settle how many fit."""
        if not self._open:
            yield
            return
        torch.cuda.reset_peak_memory_stats(self.device)
        held = torch.cuda.memory_allocated(self.device)
        yield
        took = torch.cuda.max_memory_allocated(self.device) - held
        free, _ = torch.cuda.mem_get_info(self.device)
        unused = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        self.size, self._open = fitting(self.size, masks=masks, took=took, free=free + unused), False


def fitting(size: int, *, masks: int, took: int, free: int) -> int:
    """Estimate how many masks fit into free memory, by the bytes that some took; no fewer than before."""
    each = max(took, 1) / max(min(masks, size), 1)
    return max(size, min(MOST, int(SHARE * free / each)))


def attempted(work: Callable[[], Made], name: str, *, way_out: str) -> Made | OutOfMemoryError:
    """Do some work; where memory does not suffice give the error, without what it holds on to."""
    try:
        with memory_worded(name, way_out=way_out):
            return work()
    except OutOfMemoryError as error:
        return OutOfMemoryError(str(error))
