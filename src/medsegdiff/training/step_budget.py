"""When training ends: the steps that fit into a time, and requests to stop."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from types import FrameType

import torch
from accelerate import Accelerator

from medsegdiff.config.run import TrainConfig
from medsegdiff.training.state import Progress

WARM = 3
"""Steps that don't count: memory is asked for, workers start."""
MEASURED = 10
"""Steps that are measured, at most."""
ASK_EVERY = 5
"""Steps between questions that a GPU, or other processes, have to be waited for to answer."""
SHARE = 0.1
"""Of the time, after which the number is settled though fewer were measured."""


class StepBudget:
    """Knows ``train.max_steps``, and watches the first steps until it knows how many fit into ``train.max_minutes``.

    What was settled is kept in the progress of the run, so that a resumed one goes by it too.

    Example:
        >>> from medsegdiff.config.run import TrainConfig
        >>> budget = StepBudget(TrainConfig(max_minutes=1.0))
        >>> [budget.spend(2.0) for budget.progress.step in range(1, WARM + 2)], budget.total
        ([False, False, False, True], 30)
    """

    def __init__(
        self, train: TrainConfig, progress: Progress | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take settings into use."""
        self.max_steps, self.minutes, self.clock = train.max_steps, train.max_minutes, clock
        self.share = train.anchor_alone
        self.progress = Progress() if progress is None else progress
        self.times: list[float] = []
        self.since = 0.0

    @property
    def total(self) -> int:
        """Steps in all, as far as is known; the learning rate ends with them."""
        return self._settled or self.max_steps

    @property
    def open(self) -> bool:
        """Whether the number is yet to be settled."""
        return self.minutes is not None and not self._settled

    @property
    def step_seconds(self) -> float:
        """Median of the steps that count; where the Condition Model learns alone in some, the mean of both kinds'."""
        first, kinds = self.progress.step - len(self.times), ([], [])  # type: int, tuple[list[float], list[float]]
        for number, seconds in enumerate(self.times[WARM:], start=first + WARM):
            kinds[self._measured_alone(number)].append(seconds)
        whole, alone = (median(times or self.times[WARM:]) for times in kinds)
        return (1 - self.share) * whole + self.share * alone

    @property
    def alone(self) -> bool:
        """Whether the Condition Model learns alone in the next step: in the first ones, once their number is known."""
        step = self.progress.step
        return step < self.alone_until and (not self.open or self._measured_alone(step))

    @property
    def alone_until(self) -> int:
        """The first step in which the Diffusion Model learns too; in a run that was validated it has begun already."""
        return 0 if self.progress.validated else math.ceil(self.share * self.total)

    def _measured_alone(self, step: int) -> bool:
        """Tell whether it does in a step that is measured: in every second, so that the pace of both kinds is known."""
        return self.share > 0 and step % 2 == 1

    def asks(self, device: torch.device) -> bool:
        """Tell, in all processes alike, whether to wait after this step for what the device and the others know.

        A GPU would be idle meanwhile; a CPU is asked after each step, and so are all while steps are measured.
        """
        step = self.progress.step
        return device.type == "cpu" or self.open or step % ASK_EVERY == 0 or step >= self.total

    def start(self) -> None:
        """Start the watch before a step: what is done between steps is not training time."""
        if self.open:
            self.progress.settled = 0  # it was for another time
            self.since = self.clock()

    def elapsed(self) -> float:
        """Read the watch, in seconds."""
        return self.clock() - self.since

    def spend(self, seconds: float) -> bool:
        """Take in what the last step took; tell whether that settles the number of steps."""
        self.times.append(seconds)
        assert self.minutes is not None
        limit, spent, counting = 60 * self.minutes, sum(self.times), len(self.times) - WARM
        if counting < 1 or (counting < MEASURED and spent < SHARE * limit):
            return False
        before = self.progress.step - len(self.times)  # by an earlier process, at the same pace
        left = limit - spent - before * self.step_seconds
        fitting = self.progress.step + max(0, int(left / self.step_seconds))
        self.progress.settled, self.progress.settled_for = min(fitting, self.max_steps), self.minutes
        return True

    @property
    def _settled(self) -> int:
        """Steps that fit into the time; 0 while that is not known of this time."""
        return self.progress.settled if self.progress.settled_for == self.minutes else 0


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


def asked_anywhere(request: StopRequest, accelerator: Accelerator) -> bool:
    """Find out, in all processes alike, whether one of them was asked to stop.

    The request is only read: a signal may make it while the processes wait for each other here, and then it must still
    be there when they ask again.
    """
    if accelerator.num_processes == 1:
        return request.made
    if request.made:
        accelerator.set_trigger()
    return bool(accelerator.check_trigger())
