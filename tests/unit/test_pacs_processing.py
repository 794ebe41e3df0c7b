"""What becomes of a series when disks are full, devices fail, targets are down and results get damaged."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medsegdiff.data.dataset import CaseFiles
from medsegdiff.errors import DataError
from medsegdiff.inference.saving import Finished
from medsegdiff.inference.tally import Tally
from medsegdiff.server.pacs.inbox import Inbox, Series
from medsegdiff.server.pacs.peers import DeliveryError, UnreachableError
from medsegdiff.server.pacs.processing import Processing
from tests.integration.test_volumes import identity

DICOM = b"\0" * 128 + b"DICM"
SEG, SR, PM = (f"dicom-{part}/1.2.dcm" for part in ("seg", "sr", "pm"))


class Model:
    """Stands for a model: its results say how many images they are of; what is put into ``errors`` is raised first."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.runs = 0

    def segment(self, _: object, cases: list[CaseFiles], out: Path, **__: Any) -> Finished:
        self.runs += 1
        if self.errors:
            raise self.errors.pop(0)
        for name in (SEG, SR, PM):
            (out / name).parent.mkdir(parents=True)
            (out / name).write_text(f"of {len(list(cases[0].images[0].iterdir()))}")
        return Finished(out, Tally(count=1))


class Target:
    """Takes files, unless something is wrong."""

    def __init__(self, name: str = "TARGET", wrong: Callable[[str], DeliveryError | None] = lambda _: None) -> None:
        self.name, self.wrong, self.asked, self.taken = name, wrong, list[str](), dict[str, str]()

    def __str__(self) -> str:
        return self.name

    def send(self, file: Path) -> None:
        name = f"{file.parent.name}/{file.name}"
        self.asked.append(name)
        if (error := self.wrong(name)) is not None:
            raise error
        assert name not in self.taken, "once"
        self.taken[name] = file.read_text()


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    found = Model()
    monkeypatch.setattr("medsegdiff.server.pacs.processing.segment_files", found.segment)
    return found


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again without a pause."""
    monkeypatch.setattr("medsegdiff.server.pacs.delivery.PAUSES", (0.0,))


def received(root: Path, *numbers: int) -> Series:
    inbox = Inbox(root)
    for number in numbers:
        inbox.take("1.2", f"1.2.{number}", DICOM)
    return inbox.series("1.2")


def processing(*targets: Target, said: list[str] | None = None) -> Processing:
    return Processing(identity(), targets, noted=([] if said is None else said).append)


def told(series: Series) -> tuple[str, str]:
    assert series.done is not None
    return series.done.state, series.done.error


def test_what_is_left_of_a_series_is_not_segmented_as_if_it_were_all(tmp_path: Path, model: Model) -> None:
    one, target = received(tmp_path, 1, 2, 3), Target()
    assert processing(target).do(one)
    assert target.taken[SEG] == "of 3"
    one.clear()  # long ago
    received(tmp_path, 4)
    assert processing(target).do(one)
    assert model.runs == 1
    assert told(one) == ("failed", "3 images that came earlier were removed since. Send the whole series again.")
    assert one.settled
    received(tmp_path, 1, 2, 3)
    target.taken.clear()
    assert processing(target).do(one)
    assert (target.taken[SEG], told(one)) == ("of 4", ("delivered", ""))


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "/in/1.2: is full"), RuntimeError("CUDA error of Made^Up"), MemoryError()]
)
def test_what_is_the_fault_of_the_machine_does_not_end_a_series(tmp_path: Path, model: Model, error: Exception) -> None:
    said = list[str]()
    one, target = received(tmp_path, 1, 2), Target()
    doing, model.errors = processing(target, said=said), [error] * 3
    assert [doing.do(one) for _ in range(4)] == [False] * 3 + [True]
    assert (told(one), target.taken[SEG]) == (("delivered", ""), "of 2")
    assert "can't be processed now" in said[0]
    assert not any("/in" in line or "Made" in line for line in said)


@pytest.mark.usefixtures("at_once")
def test_a_disk_that_is_full_for_records_is_waited_for_too(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, target = received(tmp_path, 1, 2), Target()
    doing = processing(target)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    for place in ("flush", "write_json"):
        with monkeypatch.context() as patch:
            patch.setattr(f"medsegdiff.server.pacs.inbox.{place}", full)
            assert [doing.do(one) for _ in range(3)] == [False] * 3
    assert doing.do(one)
    assert told(one) == ("delivered", "")


def test_a_pause_follows_what_failed(tmp_path: Path, model: Model) -> None:
    one, doing = received(tmp_path, 1), processing()
    model.errors = [OSError(errno.ENOSPC, "full")]
    assert not doing.do(one)
    assert not doing.do(one)
    assert model.runs == 1


def test_a_failed_series_is_tried_again_when_it_comes_again(tmp_path: Path, model: Model) -> None:
    one, inbox = received(tmp_path, 1, 2), Inbox(tmp_path)
    model.errors = [DataError("slices are missing."), KeyError("Made^Up")]
    assert processing().do(one)
    assert told(one) == ("failed", "slices are missing.")
    assert list(inbox.quiet(0.0)) == []
    received(tmp_path, 1, 2)
    assert list(inbox.quiet(0.0)) == [one]
    assert processing().do(one)
    assert told(one) == ("failed", "KeyError.")
    received(tmp_path, 2)
    assert list(inbox.quiet(0.0)) == [one]
    assert processing().do(one)
    assert told(one) == ("delivered", "")


@pytest.mark.parametrize("damaged", [b"", None])
def test_results_that_were_damaged_are_made_again(tmp_path: Path, model: Model, damaged: bytes | None) -> None:
    """As by a loss of power, after which the program begins again."""
    one, down = received(tmp_path, 1, 2), Target(wrong=lambda _: DeliveryError("not now."))
    assert not processing(down).do(one)
    (one.results / SR).unlink() if damaged is None else (one.results / SR).write_bytes(damaged)
    said, target = list[str](), Target()
    doing = processing(target, said=said)
    assert not doing.do(one)
    assert "damaged" in said[0]
    target.taken.clear()
    assert doing.do(one)
    assert (model.runs, target.taken) == (2, dict.fromkeys((SEG, SR, PM), "of 2"))


def test_a_target_that_is_down_keeps_no_other_waiting(tmp_path: Path, model: Model) -> None:
    down, fine, said = Target("DOWN", lambda _: UnreachableError("nobody is there.")), Target("FINE"), list[str]()
    one, doing = received(tmp_path, 1), processing(down, fine, said=said)
    assert not doing.do(one)
    assert (list(fine.taken), down.asked) == ([SEG, SR, PM], [SEG])
    assert not doing.do(one)
    other = Inbox(tmp_path)
    fine.taken.clear()
    other.take("1.3", "1.3.1", DICOM)
    assert not doing.do(other.series("1.3"))
    assert list(fine.taken) == [SEG, SR, PM]
    assert down.asked == [SEG]  # it is down for that series too
    down.wrong = lambda _: None
    assert processing(down, fine).do(one)
    assert list(down.taken) == [SEG, SR, PM]
    assert json.loads((one.folder / "made.json").read_text())["delivered"] == [
        f"{name} to {whom}" for whom in ("FINE", "DOWN") for name in (SEG, SR, PM)
    ]


@pytest.mark.usefixtures("at_once")
def test_a_file_that_is_refused_holds_no_other_back(tmp_path: Path, model: Model) -> None:
    target = Target(wrong=lambda name: DeliveryError("no segments here.") if name == SEG else None)
    one, doing = received(tmp_path, 1), processing(target)
    assert [doing.do(one) for _ in range(3)] == [False] * 3
    assert list(target.taken) == [SR, PM]
    target.wrong = lambda _: None
    assert doing.do(one)
    assert list(target.taken) == [SR, PM, SEG]
