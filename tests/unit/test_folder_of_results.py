"""``segment.json``: written and read by one hand, and read as earlier versions wrote it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from medsegdiff.errors import ConfigError, DataError
from medsegdiff.inference import RECORD
from medsegdiff.inference.attempt import Attempt, held
from medsegdiff.inference.case_record import CaseRecord
from medsegdiff.inference.folder import SegmentationFolder
from medsegdiff.inference.record import ImageRecord, Record, Settings
from medsegdiff.inference.sweeping import sweep
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
    with renewed(SegmentationFolder(tmp_path), record):
        pass
    assert json.loads((tmp_path / RECORD).read_text())["format"] == 3
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
        (FORMAT_1 | {"format": 4}, "has format 4; this version reads up to 3"),
    ],
)
def test_what_is_not_understood_is_named(tmp_path: Path, value: object, words: str) -> None:
    with pytest.raises(DataError, match=words):
        told(tmp_path, value)


@contextmanager
def renewed(folder: SegmentationFolder, record: Record | None = None) -> Iterator[None]:
    with held(folder.root) as attempt, folder.renewed(record or RECORD_OF_NOW, None, attempt):
        yield


RECORD_OF_NOW = Record(task="binary", classes=("lesion",))


@pytest.fixture
def earlier(tmp_path: Path) -> SegmentationFolder:
    """Results of an earlier time."""
    folder = SegmentationFolder(tmp_path / "out")
    with renewed(folder):
        for file in ("masks/a.png", "members/00/masks/a.png", "cases/ab/a.json"):
            (folder.root / file).parent.mkdir(parents=True)
            (folder.root / file).write_text("old")
    return folder


def files_of(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def test_results_beside_which_images_were_laid_are_kept(earlier: SegmentationFolder) -> None:
    """Somebody makes a data set of them, with masks that were corrected by hand."""
    (earlier.root / "images").mkdir()
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match="holds images, so its masks may be your references. Choose another"):
            earlier.check_room(overwrite=overwrite)


def test_what_is_to_be_read_does_not_go_with_earlier_results(earlier: SegmentationFolder, tmp_path: Path) -> None:
    (tmp_path / "link.png").symlink_to(earlier.root / "masks" / "a.png")
    (tmp_path / "way").symlink_to(earlier.root / "masks")
    for inside in (earlier.root / "masks" / "a.png", tmp_path / "link.png", tmp_path / "way" / "a.png"):
        with pytest.raises(ConfigError, match="to be read, among the results to be replaced"):
            earlier.check_room(overwrite=True, inputs=[tmp_path / "b.png", inside])
    earlier.check_room(overwrite=True, inputs=[tmp_path / "b.png", earlier.root / "c.png"])


def test_earlier_results_are_back_where_new_ones_can_not_be_written(earlier: SegmentationFolder) -> None:
    before = files_of(earlier.root)
    with pytest.raises(OSError, match="full"), renewed(earlier):
        (earlier.root / "masks").mkdir()
        (earlier.root / "masks" / "b.png").write_text("ne")
        (earlier.root / "labels").mkdir()
        raise OSError("full")
    assert files_of(earlier.root) == before
    assert not (earlier.root / "labels").exists()


def test_earlier_results_are_gone_when_there_are_new_ones(earlier: SegmentationFolder) -> None:
    (earlier.root / "notes.txt").write_text("mine")
    with renewed(earlier):
        (earlier.root / "labels").mkdir()
        (earlier.root / "labels" / "b.png").write_text("new")
    assert set(files_of(earlier.root)) == {RECORD, "cases/run.json", "notes.txt", "labels/b.png"}


def killed(folder: SegmentationFolder, work: Callable[[Attempt], object]) -> None:
    """Replace results in a process of its own, and end it in the midst."""
    child = os.fork()
    if child == 0:
        try:
            attempt = Attempt(folder.root)
            with folder.renewed(RECORD_OF_NOW, None, attempt):
                work(attempt)
        finally:
            os._exit(9)
    os.waitpid(child, 0)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("moved", [1, 2, None])
def test_earlier_results_are_back_after_a_kill(
    earlier: SegmentationFolder, moved: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, rename, count = files_of(earlier.root), Path.rename, iter(range(1 + (moved or 99)))

    def some(path: Path, target: Path) -> Path:  # the first one names the folder of the attempt
        return rename(path, target) if next(count, None) is not None else os._exit(9)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", some)
        killed(earlier, lambda attempt: os._exit(9))
    assert files_of(earlier.root) != before
    assert sweep(earlier.root) == []
    assert files_of(earlier.root) == before
    assert not list(earlier.root.glob(".*"))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_earlier_results_do_not_come_back_beside_new_ones(earlier: SegmentationFolder) -> None:
    killed(earlier, lambda attempt: (attempt.commit(CaseRecord(name="b", settings=Settings())), os._exit(9)))
    sweep(earlier.root)
    assert {Path(name).name for name in files_of(earlier.root)} == {RECORD, "run.json", "b.json"}
    assert not list(earlier.root.glob(".*"))


def test_a_linked_folder_of_results_loses_its_link_alone(earlier: SegmentationFolder, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "c.png").write_text("mine")
    (earlier.root / "overlay").symlink_to(tmp_path / "mine")
    with renewed(earlier):
        pass
    assert (tmp_path / "mine" / "c.png").read_text() == "mine"
    assert not (earlier.root / "overlay").exists()
