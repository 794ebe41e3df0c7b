"""A worker fetches what an archive has more than before, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from medsegdiff.server.pacs.archive import Archive, Found
from medsegdiff.server.pacs.inbox import Inbox, Series
from medsegdiff.server.pacs.processing import Processing
from medsegdiff.server.pacs.watch import watch


class Shelf(Archive):
    """An archive with one series."""

    def __init__(self, *images: str, counted: int = 0) -> None:
        self.given, self.counted, self.fetched = images, counted, 0

    def search(self, query: object) -> list[Found]:
        return [Found("1", "1.2", "CT", self.counted or len(self.given))]

    def images(self, found: Found) -> Iterator[tuple[str, bytes]]:
        self.fetched += 1
        return ((image, b"an image") for image in self.given)


class Doing(Processing):
    """Counts the images of what it is given."""

    def __init__(self) -> None:
        self.done: list[int] = []

    def do(self, series: Series) -> bool:
        self.done.append(len(series.images))
        series.finish(series.images, [], {})
        series.end("delivered", series.images)
        return True


def look(shelf: Shelf, doing: Doing, folder: Path, *, keep: float = 600.0, times: int = 1) -> list[str]:
    said, stop = list[str](), Event()
    looks = iter([False] * (times - 1) + [True])
    stop.wait = lambda _=None: next(looks)  # type: ignore[method-assign, assignment]
    options: dict[str, Any] = {"every": None if times == 1 else 1.0, "keep": keep, "noted": said.append, "stop": stop}
    watch(shelf, {}, doing, folder, **options)
    return said


def test_a_series_that_has_grown_is_fetched_and_done_again(tmp_path: Path) -> None:
    shelf, doing = Shelf("1.1", "1.2"), Doing()
    look(shelf, doing, tmp_path)
    shelf.given = ("1.1", "1.2", "1.3")
    look(shelf, doing, tmp_path)
    look(shelf, doing, tmp_path)
    assert (doing.done, shelf.fetched) == ([2, 3], 2)


def test_a_series_that_has_shrunk_is_not_fetched_at_every_look(tmp_path: Path) -> None:
    shelf, doing = Shelf("1.1", "1.2", "1.3"), Doing()
    look(shelf, doing, tmp_path, keep=-1.0)
    assert Inbox(tmp_path).series("1.2").images == ()
    shelf.given = ("1.1", "1.2")
    for _ in range(2):
        look(shelf, doing, tmp_path)
    assert (doing.done, shelf.fetched) == ([3], 1)


def test_an_archive_that_counts_more_than_it_gives_is_not_asked_again_and_again(tmp_path: Path) -> None:
    shelf, doing = Shelf("1.1", "1.2", counted=3), Doing()
    look(shelf, doing, tmp_path, times=5)
    assert (doing.done, shelf.fetched) == ([2], 1)


def test_a_full_disk_ends_no_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Inbox, "take", full)
    assert look(Shelf("1.1"), Doing(), tmp_path) == ["Series 1.2: can't be kept (No space left on device)."]
