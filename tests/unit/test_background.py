"""Work in the background: in order, bounded, and its errors are heard."""

from __future__ import annotations

import threading
import time

import pytest

from medsegdiff.inference import background as background_of
from medsegdiff.inference.background import Background


def test_items_are_worked_on_in_their_order_and_all_at_the_end() -> None:
    done: list[int] = []
    with Background[int](lambda item: (time.sleep(0.001 * (item % 3)), done.append(item))[1]) as work:
        for item in range(20):
            work.put(item, size=1)
    assert done == list(range(20))


def test_no_more_waits_than_there_is_room_for() -> None:
    most, waiting, lock = 0, 0, threading.Lock()

    def work(item: int) -> None:
        nonlocal waiting
        time.sleep(0.002)
        with lock:
            waiting -= 1

    with Background(work, room=3) as background:
        for item in range(12):
            with lock:
                waiting += 1
                most = max(most, waiting)
            background.put(item, size=1)
    assert 1 < most <= 4  # those that wait, and the one that is made


def test_what_is_larger_than_the_room_is_waited_for() -> None:
    done: list[str] = []

    def work(item: str) -> None:
        time.sleep(0.01)
        done.append(item)

    with Background(work, room=10) as background:
        background.put("small", size=1)
        background.put("large", size=11)
        assert done == ["small", "large"]


def test_an_error_of_the_work_reaches_the_caller_and_ends_it() -> None:
    done: list[int] = []

    def work(item: int) -> None:
        if item == 1:
            raise OSError("full")
        done.append(item)

    with pytest.raises(OSError, match="full"), Background(work) as background:
        for item in range(100):
            background.put(item, size=0)
    assert done == [0]  # nothing after it, though all had been put
    with pytest.raises(OSError, match="full"), Background(work) as background:
        background.put(1, size=1)  # also where nothing is put after it


def test_an_interruption_drops_what_waits() -> None:
    done: list[int] = []

    def work(item: int) -> None:
        time.sleep(0.05)
        done.append(item)

    with pytest.raises(KeyboardInterrupt), Background(work) as background:
        for item in range(10):
            background.put(item, size=1)
        raise KeyboardInterrupt
    assert len(done) <= 2


def test_no_more_wait_than_may_however_small_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_of, "MOST", 3)
    most, waiting = 0, 0

    def work(item: int) -> None:
        nonlocal waiting
        time.sleep(0.001)
        waiting -= 1

    with Background(work) as background:
        for item in range(20):
            waiting += 1
            most = max(most, waiting)
            background.put(item, size=0)
    assert 1 < most <= 4
