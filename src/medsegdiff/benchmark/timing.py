"""Measuring: what grows stage by stage, runs in turn, the peak of memory, and on which machine."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch

Reading = TypeVar("Reading", float, np.ndarray)

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
CPUS = Path("/proc/cpuinfo")


class Meter(Generic[Reading]):
    """Notes by how much a reading (of a clock, of a counter) grows in each stage."""

    def __init__(self, read: Callable[[], Reading]) -> None:
        self.read: Callable[[], Reading] = read
        self.spans: dict[str, list[Reading]] = {}
        """Stage → what each pass through it took."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Note what is done here under a name; stages may lie in each other."""
        start = self.read()
        yield
        self.spans.setdefault(name, []).append(self.read() - start)

    @contextmanager
    def watch(self, owner: object, methods: Mapping[str, str]) -> Iterator[None]:
        """Note each call of some methods of an object."""
        own = {method: vars(owner)[method] for method in methods if method in vars(owner)}  # not those of its class
        for method, name in methods.items():
            setattr(owner, method, self._noted(getattr(owner, method), name))
        try:
            yield
        finally:
            for method in methods:
                delattr(owner, method)
            for method, before in own.items():
                setattr(owner, method, before)

    def _noted(self, method: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            with self.stage(name):
                return method(*args, **options)

        return call


def stopwatch(device: torch.device) -> Meter[float]:
    """Make a meter of seconds."""

    def read() -> float:
        wait_for(device)
        return time.perf_counter()

    return Meter(read)


def wait_for(device: torch.device) -> None:
    """Wait until a device has done all that it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def in_turn(runs: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[Any]]:
    """Run A B A B …, so that what slows the machine for a while slows all of them."""
    results: dict[str, list[Any]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            results[name].append(run())
    return results


def peak_memory(run: Callable[[], Any], device: torch.device) -> float | None:
    """Measure how far memory grows while something runs.

    On a GPU that is what PyTorch allocates there, elsewhere the resident memory of the process, as Linux knows it.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before: float | None = torch.cuda.memory_allocated(device)
        run()
        after: float | None = torch.cuda.max_memory_allocated(device)
    else:
        with contextlib.suppress(AttributeError, OSError):  # what was freed goes back to the system first, or it is
            ctypes.CDLL(None).malloc_trim(0)  # used again without being seen
        with contextlib.suppress(OSError):
            RESET.write_text("5", encoding="ascii")  # the peak of the resident memory starts anew
        before = _resident("VmRSS")
        run()
        after = _resident("VmHWM")
    return None if before is None or after is None else max(0.0, float(after - before))


def _resident(field: str) -> float | None:
    """Read a line of what Linux tells of the process, in bytes."""
    if not STATUS.is_file():
        return None
    lines = dict(line.split(":", 1) for line in STATUS.read_text(encoding="utf-8").splitlines() if ":" in line)
    return float(lines[field].split()[0]) * 1024 if field in lines else None


def with_weights(grown: float | None, net: torch.nn.Module) -> float | None:
    """Add what the weights take to what memory grew by."""
    weights = sum(p.numel() * p.element_size() for p in net.parameters())
    return None if grown is None else grown + weights


def describe_machine(device: torch.device) -> dict[str, str | int]:
    """Tell what computes."""
    gpu = device.type == "cuda"
    return {
        "device": str(device),
        "name": torch.cuda.get_device_name(device) if gpu else _processor(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "torch": torch.__version__,
    }


def _processor() -> str:
    lines = CPUS.read_text(encoding="utf-8").splitlines() if CPUS.is_file() else []
    named = [line for line in lines if line.startswith("model name")]
    return named[0].partition(":")[2].strip() if named else platform.processor() or platform.machine()
