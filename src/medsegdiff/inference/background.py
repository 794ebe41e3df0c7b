"""Work in the background: results are written while the next ones are computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item")

ROOM = 1 << 28
"""Bytes of items that may wait; what is larger is waited for."""
MOST = 64
"""Items that may wait, however small."""


class Background(Generic[Item]):
    """Does work on items in a thread, in their order, and keeps few of them waiting.

    An error of the work is raised where the next item is put, or at the end; what waits then is left undone.
    """

    def __init__(self, work: Callable[[Item], None], *, room: int = ROOM) -> None:
        self._work, self._room, self._failed = work, room, False
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._waiting: deque[tuple[Future[None], int]] = deque()
        self._bytes = 0

    def put(self, item: Item, *, size: int) -> None:
        """Have an item worked on, of so many bytes; wait while there is no room for it."""
        self._wait(until=self._room - size, most=MOST - 1)
        self._waiting.append((self._pool.submit(self._done, item), size))
        self._bytes += size
        del item
        if size > self._room:
            self._wait(until=0)

    def _done(self, item: Item) -> None:
        """Work on an item, unless one before it failed."""
        if self._failed:
            return
        try:
            self._work(item)
        except BaseException:
            self._failed = True
            raise

    def _wait(self, *, until: int, most: int | None = None) -> None:
        """Wait for the oldest until all that wait take no more than so many bytes, and are no more than so many."""
        while self._waiting and (self._bytes > until or len(self._waiting) > (MOST if most is None else most)):
            oldest, size = self._waiting.popleft()
            self._bytes -= size
            oldest.result()

    def __enter__(self) -> Background[Item]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._wait(until=-1)
        finally:
            self._pool.shutdown(cancel_futures=True)
