"""Work ahead: in order, bounded by number and bytes, and its errors are heard where their items would be."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from medsegdiff.inference.ahead import ahead


def test_results_come_in_order_while_others_are_made() -> None:
    names = set[str]()

    def work(item: int) -> int:
        names.add(threading.current_thread().name)
        time.sleep(0.001 * (item % 3))
        return item

    assert list(ahead(range(20), work, size=lambda item: 1)) == list(range(20))
    assert len(names) == 2
    assert threading.current_thread().name not in names


@pytest.mark.parametrize(("size", "room", "most"), [(1, 100, 4), (10, 35, 3), (50, 35, 1)])
def test_no_more_is_ahead_than_there_is_room_for(size: int, room: int, most: int) -> None:
    begun = 0

    def work(item: int) -> int:
        return item

    def items() -> Iterator[int]:
        nonlocal begun
        while begun < 12:
            begun += 1
            yield begun

    for used in ahead(items(), work, size=lambda item: size, room=room, most=4):
        assert begun - used <= most
    assert begun == 12


def test_of_what_could_not_be_read_nothing_follows_for_what_comes_next() -> None:
    begun = list[int]()

    def items() -> Iterator[int]:
        for item in range(8):
            begun.append(item)
            yield item

    for used in ahead(items(), lambda item: item, size=lambda item: 0 if item == 3 else 50, room=60):
        assert begun[-1] - used <= 1


def test_an_error_is_raised_in_its_place() -> None:
    def work(item: int) -> int:
        return 1 // (item - 2)

    found = ahead(range(5), work, size=lambda item: 1)
    assert [next(found), next(found)] == [-1, -1]
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_who_stops_early_leaves_no_thread() -> None:
    before = threading.active_count()
    found = ahead(range(100), lambda item: item, size=lambda item: 1)
    next(found)
    found.close()
    assert threading.active_count() == before
