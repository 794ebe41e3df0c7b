"""Saving a result while the next one is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from medsegdiff.inference.segmentation import Segmentation

Saved = TypeVar("Saved")


def save_beside(
    results: Iterable[Segmentation], save: Callable[[Segmentation], Saved]
) -> Iterator[tuple[str, Future[Saved]]]:
    """Save results in a thread, each while the next one is computed.

    Pictures wait for the disk and for compression, and the processor need not wait with them. A volume is large: it
    is saved before the next one is begun, so that only one is in memory.

    Args:
        results: Computed as they are asked for.
        save: Called in the thread, for one result at a time.

    Yields:
        Name, and what ``save`` came to; the result before is always asked for before the next is saved.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="save") as thread:
        before: list[tuple[str, Future[Saved]]] = []
        for result in results:
            yield from before
            before = [(result.name, thread.submit(save, result))]
            if result.geometry.affine is not None:
                del result
                yield before.pop()
        yield from before
