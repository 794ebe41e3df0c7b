"""Series on the disk: what has come stays until it is done with, and outlasts a loss of power."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal

import pytest

from medsegdiff.server.pacs.inbox import Inbox, Series

KEEP = 3600.0


def received(inbox: Inbox, *numbers: int) -> Series:
    for number in numbers:
        inbox.take("1.2", f"1.2.{number}", b"an image")
    return inbox.series("1.2")


def end(series: Series, state: Literal["delivered", "failed"]) -> None:
    """Let a series end, a day ago."""
    os.utime(series.where, (series.came - 24 * KEEP,) * 2)
    series.end(state, series.images, came=series.came)
    ended = json.loads((series.folder / "done.json").read_text())
    (series.folder / "done.json").write_text(json.dumps({**ended, "at": ended["at"] - 24 * KEEP}))


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Inodes that are on the disk."""
    found = set[int]()
    monkeypatch.setattr(os, "fsync", lambda number: found.add(os.fstat(number).st_ino))
    return found


@pytest.mark.parametrize("state", ["delivered", "failed"])
def test_what_comes_again_is_not_removed_while_it_comes(tmp_path: Path, state: Literal["delivered", "failed"]) -> None:
    inbox = Inbox(tmp_path)
    one = received(inbox, 1, 2, 3)
    end(one, state)
    inbox.sweep(KEEP)
    assert one.images == ()
    for number in (1, 2, 3):  # as a node looks while they come
        received(inbox, number)
        inbox.sweep(KEEP)
    assert len(one.images) == 3
    end(one, state)
    inbox.sweep(KEEP)
    assert one.images == ()


def test_a_failed_series_that_comes_again_is_to_be_done_again(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)
    one = received(inbox, 1, 2)
    end(one, "failed")
    assert list(inbox.quiet(0.0)) == []
    received(inbox, 2)
    assert list(inbox.quiet(0.0)) == [one]
    end(one, "delivered")
    received(inbox, 2)
    assert list(inbox.quiet(0.0)) == []


def test_an_image_is_on_the_disk_before_it_is_acknowledged(tmp_path: Path, flushed: set[int]) -> None:
    one = received(Inbox(tmp_path), 1)
    for path in (one.where / "1.2.1", one.where, one.folder, tmp_path):
        assert path.stat().st_ino in flushed, path


def test_results_are_on_the_disk_before_they_are_vouched_for(
    tmp_path: Path, flushed: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = received(Inbox(tmp_path), 1)
    file = one.results / "dicom-seg" / "1.2.dcm"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"segments")
    before, written = set[int](), Path.replace

    def noting(self: Path, target: Path) -> Path:
        if Path(target).name == "made.json":
            before.update(flushed)
        return written(self, target)

    monkeypatch.setattr(Path, "replace", noting)
    one.finish(one.images, [file], {})
    assert {path.stat().st_ino for path in (file, file.parent, one.results)} <= before
    assert one.made is not None
    assert one.made.left("A@b:1") == {"dicom-seg/1.2.dcm": one.made.files["dicom-seg/1.2.dcm"]}
