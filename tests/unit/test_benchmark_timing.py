"""Timing: stages on a clock that the test winds, runs in turn, what memory is seen to grow."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch

from medsegdiff.benchmark.flops import Operations, Pass, as_pass
from medsegdiff.benchmark.speed import affordable, report_stages
from medsegdiff.benchmark.timing import Meter, in_turn, peak_memory, stopwatch


class Clock:
    """Stands still unless somebody works."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        self.now += seconds


class Worker:
    """Has a method whose calls take as long as they say."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def work(self, seconds: float, *, twice: bool = False) -> float:
        self.clock.work(seconds * (2 if twice else 1))
        return -seconds


def test_stages_are_noted_call_by_call_and_may_lie_in_each_other() -> None:
    clock = Clock()
    meter = Meter(clock)
    for seconds in (3.0, 4.0):
        with meter.stage("outer"):
            clock.work(1.0)
            with meter.stage("inner"):
                clock.work(seconds)
    assert meter.spans == {"inner": [3.0, 4.0], "outer": [4.0, 5.0]}


def test_methods_are_watched_with_their_arguments_and_given_back() -> None:
    clock = Clock()
    worker, meter = Worker(clock), Meter(clock)
    with meter.watch(worker, {"work": "labour"}):
        assert worker.work(2.0) == -2
        assert worker.work(3.0, twice=True) == -3
    worker.work(9.0)
    assert meter.spans == {"labour": [2.0, 6.0]}
    with pytest.raises(RuntimeError), meter.watch(worker, {"work": "labour"}):
        raise RuntimeError
    assert "work" not in vars(worker)


def test_runs_take_turns_and_a_slow_spell_meets_all_of_them() -> None:
    """The machine is ten times slower in the second round: the ratio within each round does not notice."""
    clock, order = Clock(), []

    def run(name: str, seconds: float) -> Callable[[], float]:
        def timed() -> float:
            slow = 10 if order.count(name) == 1 else 1
            order.append(name)
            start = clock.now
            clock.work(slow * seconds)
            return clock.now - start

        return timed

    results = in_turn({"a": run("a", 2.0), "b": run("b", 1.0)}, 3)
    assert order == ["a", "b", "a", "b", "a", "b"]
    assert results == {"a": [2.0, 20.0, 2.0], "b": [1.0, 10.0, 1.0]}


def test_the_stages_of_an_image_add_up_to_the_whole() -> None:
    spans = {
        "read": [1.0],
        "segment": [100.0],
        "condition": [10.0],
        "tables": [2.0, 2.0],
        "steps": [20.0, 30.0],
        "fuse": [6.0],
        "write": [3.0],
    }
    whole = as_pass(spans, made=2, steps=2)
    assert whole == Pass(1.0, 10.0, 4.0, 50.0, (20.0, 30.0), 6.0, 30.0, 3.0)
    assert whole.seconds == 100
    longer = as_pass(spans, made=2, steps=5)
    assert (longer.tables, longer.steps, longer.seconds) == (4 + 3 * 2, 50 + 3 * 30, 100 + 3 * 32)


def test_stages_are_told_as_medians_over_the_rounds() -> None:
    passes = [Pass(1.0, 2.0, 3.0, 2 * step, (step, step), 5.0, 6.0, 7.0) for step in (4.0, 90.0, 5.0)]
    told = report_stages({"steps": Operations(3e9, 1.0, 1.0)}, passes)
    assert told["steps"] == {"seconds": 10.0, "gflop": 3.0, "each": [5.0, 5.0]}
    assert told["write"] == {"seconds": 7.0}


def test_only_as_many_steps_are_made_as_there_is_time_for() -> None:
    assert affordable(0.1, 20, repeats=3, patience=60.0) == 20
    assert affordable(2.0, 20, repeats=3, patience=60.0) == 10
    assert affordable(99.0, 20, repeats=3, patience=60.0) == 2
    assert affordable(99.0, 1, repeats=3, patience=60.0) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_memory_that_was_given_back_is_seen_and_that_of_earlier_runs_is_not() -> None:
    def fill(megabytes: int) -> None:
        torch.ones(megabytes * 250_000)  # 4 bytes each

    cpu = torch.device("cpu")
    large, small = (peak_memory(lambda size=size: fill(size), cpu) for size in (300, 100))
    assert large == pytest.approx(300e6, rel=0.1)
    assert small == pytest.approx(100e6, rel=0.1)


def test_the_stopwatch_runs() -> None:
    watch = stopwatch(torch.device("cpu"))
    with watch.stage("a"):
        torch.ones(10).sum()
    assert 0 < watch.spans["a"][0] < 1
