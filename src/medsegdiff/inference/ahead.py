"""Work ahead: images are read while those before them are computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from medsegdiff.inference.background import ROOM

Item = TypeVar("Item")
Made = TypeVar("Made")

THREADS, MOST = 2, 8
"""Items that are worked on at the same time, and those that are worked on or wait."""


def ahead(
    items: Iterable[Item],
    work: Callable[[Item], Made],
    *,
    size: Callable[[Made], int],
    threads: int = THREADS,
    most: int = MOST,
    room: int = ROOM,
) -> Iterator[Made]:
    """Do work on items in threads, and give what comes of them in their order.

    What waits takes no more bytes than there is room for, but for one item: each is expected to be as large as the one
    before it, so of large ones just one is ahead. An error is raised where its item would have been given.
    """
    pending: deque[Future[Made]] = deque()
    source, expected = iter(items), room  # of the first nothing is known
    pool = ThreadPoolExecutor(threads)

    def fill() -> None:
        while len(pending) < most and (not pending or (len(pending) + 1) * expected <= room):
            for item in source:
                pending.append(pool.submit(work, item))
                break
            else:
                return

    try:
        fill()
        while pending:
            made = pending.popleft().result()
            expected = size(made) or expected  # of what could not be read nothing is known
            fill()
            yield made
            del made
    finally:
        pool.shutdown(cancel_futures=True)
