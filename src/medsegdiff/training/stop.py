"""Stopping when asked: Ctrl-C and SIGTERM let the step end and leave a checkpoint."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class StopRequest:
    """Whether somebody asked to stop."""

    made: bool = False


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Turn Ctrl-C and SIGTERM into a request to stop after the step.

    A second Ctrl-C, a second later or more, stops at once. A second SIGTERM does not: cluster managers and
    launchers both send one.
    """
    request, first = StopRequest(), [0.0]

    def ask(number: int, frame: FrameType | None) -> None:
        if first[0] and number == signal.SIGINT and time.monotonic() - first[0] >= 1:
            raise KeyboardInterrupt
        first[0] = first[0] or time.monotonic()
        request.made = True

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: signals are not ours
        before = {}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
