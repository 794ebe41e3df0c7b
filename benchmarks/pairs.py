"""Two ways of the same thing, timed in turn, and how the benchmarks of speed print what they find."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch

from medsegdiff.benchmark.timing import in_turn

CPU = torch.device("cpu")
Run = Callable[[], Any]


@dataclass(frozen=True)
class Given:
    """How large and how often; the defaults take some minutes on two cores."""

    size: int
    members: int
    repeats: int
    preset: str
    large: str
    small: str


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Print rows as they come, and give the table in Markdown."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        lines.append(f"| {' | '.join(row)} |")
        print(lines[-1], flush=True)
    return lines


def compared(saving: str, instead: str, on: Run, off: Run, given: Given) -> tuple[str, ...]:
    """Time two ways in turn, and see how far their results lie apart."""
    difference = float((on() - off()).abs().max())  # warms both up
    return (saving, instead, *in_rounds(on, off, given.repeats), f"{difference:.0e}")


def in_rounds(on: Run, off: Run, repeats: int) -> tuple[str, str, str]:
    """Give the medians of both, and that of their ratio."""
    seconds = in_turn({"on": partial(timed, on), "off": partial(timed, off)}, repeats)
    ratio = median(b / a for a, b in zip(seconds["on"], seconds["off"], strict=True))
    return f"{median(seconds['on']):.3g}", f"{median(seconds['off']):.3g}", f"{ratio:.2f}"


def timed(run: Run) -> float:
    """Give the seconds that something takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def within(context: Callable[[], AbstractContextManager[None]], run: Run) -> Run:
    """Make something run within a context."""

    def inside() -> Any:
        with context():
            return run()

    return inside


@contextmanager
def replaced(owner: Any, **methods: Any) -> Iterator[None]:
    """Give an object other methods for a while."""
    for name, method in methods.items():
        setattr(owner, name, method)
    try:
        yield
    finally:
        for name in methods:
            delattr(owner, name)


def give_back_memory() -> None:
    """Let the C library give freed memory back, so that the next peak is measured from what is really held."""
    gc.collect()
    with suppress(OSError, AttributeError):  # other systems
        ctypes.CDLL(None).malloc_trim(0)


def shown(peak: float | None, unit: float) -> str:
    """Word a number of bytes."""
    return "?" if peak is None else f"{peak / unit:.2f}" if unit == 1e9 else f"{peak / unit:.0f}"
