"""A worker beside an archive: it looks for series, segments those that it has not seen, and stores what it made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Event

from medsegdiff.server.pacs.archive import Archive, Found
from medsegdiff.server.pacs.inbox import Inbox
from medsegdiff.server.pacs.node import locked
from medsegdiff.server.pacs.peers import DeliveryError
from medsegdiff.server.pacs.processing import Processing


def watch(
    archive: Archive,
    query: Mapping[str, str],
    processing: Processing,
    folder: Path,
    *,
    every: float | None,
    keep: float,
    noted: Callable[[str], None],
    stop: Event,
) -> int:
    """Process all series that fit a query, and look again.

    A series is taken once its number of images is the same at two looks; where there is one look alone, as it is.

    Args:
        archive: Where series are, and results go.
        query: Which series: keywords of DICOM and their values.
        processing: What becomes of a series.
        folder: What is remembered, and images for as long as they are needed.
        every: Seconds between two looks; ``None``: there is one.
        keep: Seconds that images and results are kept after the end of a series.
        noted: Told what happens, in sentences.
        stop: Ends it.

    Returns:
        Series that were not delivered, at the last look.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        inbox, before, taken = Inbox(folder), dict[str, int](), dict[str, int]()
        while True:
            left, found = 0, list[Found]()
            try:
                found = archive.search(query)
            except DeliveryError as error:
                noted(str(error))
                left = 1
            for one in found:
                growing = every is not None and before.get(one.series) != one.count
                if stop.is_set() or growing or taken.get(one.series) == one.count or _is_settled(inbox, one):
                    continue
                if _done(archive, inbox, one, processing, noted):
                    taken[one.series] = one.count  # an archive may count more than it gives
                else:
                    left += 1
            inbox.sweep(keep)
            before = {one.series: one.count for one in found}
            if every is None or stop.wait(every):
                return left


def _is_settled(inbox: Inbox, found: Found) -> bool:
    """Tell whether a series was done, with as many images as there are now, or more that there once were."""
    ended = inbox.series(found.series).done
    return ended is not None and found.count <= len(ended.images)


def _done(archive: Archive, inbox: Inbox, found: Found, processing: Processing, noted: Callable[[str], None]) -> bool:
    series = inbox.series(found.series)
    if found.count > len(series.images) or (series.made is None and not found.count):
        try:
            series = archive.fetch(found, inbox)
        except DeliveryError as error:
            noted(str(error))
            return False
        except OSError as error:
            noted(f"Series {found.series}: can't be kept ({error.strerror or type(error).__name__}).")
            return False
    return series.settled or processing.do(series)
