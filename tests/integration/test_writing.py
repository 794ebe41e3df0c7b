"""Results of many images in a folder: one that fails loses no other, and nothing is half there."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medsegdiff import Segmenter
from medsegdiff.errors import ConfigError
from medsegdiff.inference import writer
from medsegdiff.inference.files import segment_files
from medsegdiff.inference.folder import SegmentationFolder
from medsegdiff.inference.inputs import find_inputs
from tests.makers import write_png

ASKED = {"members": 2, "steps": 1}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in "abcd":
        write_png(tmp_path / "photos" / f"{name}.png", rng.integers(0, 256, (24, 20), dtype=np.uint8))
    return tmp_path / "photos"


def fail_at(name: str, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let writing a map of one image fail, after its masks have been written."""
    write = writer.write_map

    def broken(folder: Path, case: str, *rest: Any) -> None:
        if case == name:
            raise error
        write(folder, case, *rest)

    monkeypatch.setattr(writer, "write_map", broken)


def names_in(out: Path) -> set[str]:
    return {path.name for path in out.rglob("*.png")}


ERRORS = (ValueError("strange"), MemoryError("Unable to allocate 3 GiB"), OSError(errno.ENAMETOOLONG, "long"))


@pytest.mark.parametrize(("name", "error"), list(zip("abd", ERRORS, strict=True)))
def test_an_image_that_fails_loses_no_other(
    segmenter: Segmenter, photos: Path, name: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at(name, error, monkeypatch)
    out = photos.parent / "out"
    finished = segment_files(segmenter, find_inputs([photos]), out, **ASKED)
    others = [other for other in "abcd" if other != name]
    assert [image.name for image in finished.done] == others
    assert list(finished.failed) == [str(photos / f"{name}.png")]
    assert names_in(out) == {f"{other}.png" for other in others}
    told = SegmentationFolder(out).read()
    assert told is not None
    assert (list(told.images), told.failed) == (finished.done, finished.failed)
    if isinstance(error, MemoryError):
        assert "not enough memory (Unable to allocate 3 GiB)" in next(iter(finished.failed.values()))


def test_a_full_disk_ends_all_and_leaves_no_half_of_a_result(
    segmenter: Segmenter, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at("c", OSError(errno.ENOSPC, "No space left on device"), monkeypatch)
    out = photos.parent / "out"
    with pytest.raises(OSError, match="No space left"):
        segment_files(segmenter, find_inputs([photos]), out, **ASKED)
    assert names_in(out) == {"a.png", "b.png"}


def test_a_disk_that_is_full_at_once_leaves_earlier_results(
    segmenter: Segmenter, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = photos.parent / "out"
    segment_files(segmenter, find_inputs([photos / "b.png"]), out, **ASKED)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    fail_at("a", OSError(errno.ENOSPC, "No space left on device"), monkeypatch)
    with pytest.raises(OSError, match="No space left"):
        segment_files(segmenter, find_inputs([photos]), out, overwrite=True, **ASKED)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_inputs_among_earlier_results_are_not_replaced(segmenter: Segmenter, photos: Path) -> None:
    out = photos.parent / "out"
    segment_files(segmenter, find_inputs([photos]), out, **ASKED)
    with pytest.raises(ConfigError, match="to be read, among the results"):
        segment_files(segmenter, find_inputs([out / "overlay"]), out, overwrite=True, **ASKED)
    assert names_in(out / "overlay") == {f"{name}.png" for name in "abcd"}


def test_a_file_that_no_library_reads_loses_no_other(
    segmenter: Segmenter, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medsegdiff.inference import saving

    read = saving.read_case
    monkeypatch.setattr(saving, "read_case", lambda file: {}["tag"] if file.name == "b" else read(file))
    finished = segment_files(segmenter, find_inputs([photos]), photos.parent / "out", **ASKED)
    assert [image.name for image in finished.done] == ["a", "c", "d"]
    assert finished.failed == {str(photos / "b.png"): f"{photos / 'b.png'}: KeyError: 'tag'"}
