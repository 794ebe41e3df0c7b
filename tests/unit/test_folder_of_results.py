"""``segment.json``: written and read by one hand, and read as earlier versions wrote it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medsegdiff.errors import DataError
from medsegdiff.inference import RECORD
from medsegdiff.inference.folder import ImageRecord, Record, SegmentationFolder
from medsegdiff.labels import Labels
from medsegdiff.models.checkpoint import Origin

FORMAT_1 = {
    "task": "exclusive",
    "classes": ["background", "disc", "cup"],
    "model": "runs/eyes, 2nd try, last weights",
    "layout": "folder",
    "members": "auto",
    "sampling": {"num_samples": 100, "num_steps": 5, "fusion": "majority"},
    "seed": 3,
    "seconds": 12.5,
    "images": [{"name": "a", "foreground": {"disc": 0.25, "cup": 0.125}, "members": 15, "agreement": 0.5}],
    "failed": {"b.png": "b.png: is damaged."},
}


def told(folder: Path, value: object) -> Record | None:
    (folder / RECORD).write_text(json.dumps(value), encoding="utf-8")
    return SegmentationFolder(folder).read()


def test_what_earlier_versions_wrote_is_understood(tmp_path: Path) -> None:
    """The model stood in a sentence, sampling had other keys, and there was no number of a format."""
    record = told(tmp_path, FORMAT_1)
    assert record is not None
    assert record.model == Origin("runs/eyes, 2nd try", "last")
    assert record.sampling is not None
    assert (record.sampling.members, record.sampling.steps, record.sampling.fusion) == (100, 5, "majority")
    assert (record.members, record.seed, record.seconds) == ("auto", 3, 12.5)
    assert record.labels == Labels("exclusive", ("background", "disc", "cup"))
    image = ImageRecord(name="a", foreground={"disc": 0.25, "cup": 0.125}, members=15, agreement=0.5)
    assert (record.images, record.failed) == ((image,), FORMAT_1["failed"])


def test_a_model_that_lay_nowhere_is_no_folder(tmp_path: Path) -> None:
    record = told(tmp_path, FORMAT_1 | {"model": "trained in a notebook"})
    assert record is not None
    assert record.model is None


def test_what_is_written_is_read(tmp_path: Path) -> None:
    record = Record(task="binary", classes=("lesion",), model=Origin("runs/a, b", "best"), members=4, seconds=1.5)
    SegmentationFolder(tmp_path).begin(record, None)
    assert json.loads((tmp_path / RECORD).read_text())["format"] == 2
    assert SegmentationFolder.around(tmp_path / "members" / "00").read() == record


def test_a_folder_of_nobody_tells_nothing(tmp_path: Path) -> None:
    assert SegmentationFolder(tmp_path).read() is None
    assert not SegmentationFolder(tmp_path).exists


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "expected what 'medsegdiff segment' writes; found .*dictionary"),
        ({"task": "binary"}, "expected what 'medsegdiff segment' writes; found classes: Field required"),
        (FORMAT_1 | {"sampling": 5}, "found sampling: "),
        (FORMAT_1 | {"format": 3}, "has format 3; this version reads up to 2"),
    ],
)
def test_what_is_not_understood_is_named(tmp_path: Path, value: object, words: str) -> None:
    with pytest.raises(DataError, match=words):
        told(tmp_path, value)
