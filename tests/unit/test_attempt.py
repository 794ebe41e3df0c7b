"""Attempts at cases: one wins, what is there is whole, and what killed processes have left is ended or removed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from medsegdiff.inference import attempt as attempts
from medsegdiff.inference import sweeping
from medsegdiff.inference.attempt import Attempt, held, is_whole, withdraw
from medsegdiff.inference.case_record import CaseRecord, OutputFile, read_case_record, record_file
from medsegdiff.inference.record import Settings
from medsegdiff.inference.sweeping import sweep
from medsegdiff.io import atomic

PARTS = ("masks", "overlay", "members/00/masks")


def commit(attempt: Attempt, name: str, text: str) -> bool:
    """Write a case of three files, and commit it."""
    for part in PARTS:
        (attempt.begin() / part).mkdir(parents=True, exist_ok=True)
        (attempt.folder / part / f"{name}.png").write_text(text)
    return attempt.commit(CaseRecord(name=name, settings=Settings(), outputs=attempt.outputs(), host=text))


def texts_of(root: Path, name: str) -> list[str]:
    return [(root / part / f"{name}.png").read_text() for part in PARTS]


def record_of(root: Path, name: str) -> CaseRecord:
    record = read_case_record(record_file(root, name))
    assert record is not None
    return record


def forked(work: Callable[[], object]) -> int:
    """Begin work in a process of its own, which ends with it."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def hidden(root: Path) -> list[str]:
    return [path.name for path in root.rglob(".*")]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_of_processes_at_one_case_one_wins_and_no_files_are_mixed(tmp_path: Path) -> None:
    names = [f"case{number}" for number in range(30)]

    def work(text: str) -> None:
        with held(tmp_path) as attempt:
            for name in names:
                commit(attempt, name, text)

    for child in [forked(lambda text=text: work(text)) for text in ("first", "other", "third")]:
        os.waitpid(child, 0)
    for name in names:
        assert texts_of(tmp_path, name) == [record_of(tmp_path, name).host] * 3
    assert hidden(tmp_path) == []


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("moved", [0, 1, 3])
def test_a_move_that_was_begun_is_ended_by_whoever_finds_it(
    tmp_path: Path, moved: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed() -> None:
        move, count = attempts.move, iter(range(moved))
        attempts.move = lambda *paths: move(*paths) if next(count, None) is not None else os._exit(9)
        commit(Attempt(tmp_path), "a", "text")
        os._exit(9)

    os.waitpid(forked(killed), 0)
    record = record_of(tmp_path, "a")
    if moved == 1:
        assert is_whole(tmp_path, record)  # of the record alone
    assert sweep(tmp_path) == []
    assert texts_of(tmp_path, "a") == ["text"] * 3
    assert hidden(tmp_path) == []


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_what_was_not_committed_goes_and_what_it_would_have_replaced_is_back(tmp_path: Path) -> None:
    with held(tmp_path) as attempt:
        commit(attempt, "a", "earlier")

    def killed() -> None:
        attempt = Attempt(tmp_path)
        attempt.set_aside(["a"])
        (attempt.folder / "masks").mkdir()
        (attempt.folder / "masks" / "a.png").write_text("new")
        os._exit(9)

    os.waitpid(forked(killed), 0)
    assert not record_file(tmp_path, "a").exists()
    sweep(tmp_path)
    assert texts_of(tmp_path, "a") == ["earlier"] * 3
    assert is_whole(tmp_path, record_of(tmp_path, "a"))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("moved", range(4))
def test_setting_aside_that_is_cut_off_loses_nothing(
    tmp_path: Path, moved: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(tmp_path) as attempt:
        commit(attempt, "a", "earlier")
    move = attempts.move

    def cut_off(how: Callable[[], object]) -> None:
        count = iter(range(moved))
        monkeypatch.setattr(attempts, "move", lambda *paths: move(*paths) if next(count, None) is not None else how())
        Attempt(tmp_path).set_aside(["a"])

    os.waitpid(forked(lambda: cut_off(lambda: os._exit(9))), 0)
    sweep(tmp_path)
    assert texts_of(tmp_path, "a") == ["earlier"] * 3
    assert is_whole(tmp_path, record_of(tmp_path, "a"))
    assert hidden(tmp_path) == []


def test_what_can_not_be_put_back_now_is_put_back_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(source: Path, target: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with held(tmp_path) as attempt:
        commit(attempt, "a", "earlier")
    with held(tmp_path) as attempt, pytest.raises(OSError, match="Input"), monkeypatch.context() as patch:
        attempt.set_aside(["a"])
        patch.setattr(attempts, "move", broken)
        attempt.put_back()
    assert not record_file(tmp_path, "a").exists()
    with pytest.raises(OSError, match="Input"), monkeypatch.context() as patch:
        patch.setattr(attempts, "move", broken)
        sweep(tmp_path)
    assert sweep(tmp_path) == []
    assert texts_of(tmp_path, "a") == ["earlier"] * 3
    assert hidden(tmp_path) == []


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_what_all_cases_have_in_common_comes_too(tmp_path: Path) -> None:
    def killed() -> None:
        attempt = Attempt(tmp_path)
        (attempt.begin() / attempt.shared / "labels").mkdir(parents=True)
        (attempt.shared / "labels" / "table.txt").write_text("1 lesion")
        attempts.Attempt._share = lambda self: os._exit(9)  # type: ignore[method-assign]
        commit(attempt, "a", "text")

    os.waitpid(forked(killed), 0)
    assert not (tmp_path / "labels").exists()
    sweep(tmp_path)
    assert (tmp_path / "labels" / "table.txt").read_text() == "1 lesion"
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("names", [("node1", "node1-gpu"), ("job-" + "x" * 50 + "-1", "job-" + "x" * 50 + "-2")])
def test_machines_are_not_taken_for_each_other(
    tmp_path: Path, names: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "HOST", names[1])
    abroad = Attempt(tmp_path).folder
    abroad.mkdir()
    monkeypatch.setattr(sweeping, "HOST", names[0])
    assert sweep(tmp_path) == [abroad.name]
    monkeypatch.setattr(sweeping, "HOST", names[1])
    assert sweep(tmp_path) == []


def test_who_still_works_is_left_in_peace(tmp_path: Path) -> None:
    with held(tmp_path) as attempt:
        attempt.begin()
        assert sweep(tmp_path) == [attempt.folder.name]
        assert commit(attempt, "a", "text")
    assert sweep(tmp_path) == []


def test_what_another_machine_has_begun_is_left_alone_for_an_hour(tmp_path: Path) -> None:
    abroad = tmp_path / ".attempt-elsewhere-1-00000000"
    (abroad / "masks").mkdir(parents=True)
    assert sweep(tmp_path) == [abroad.name]
    for path in (abroad / "masks", abroad):
        os.utime(path, (1, 1))
    assert sweep(tmp_path) == []
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("when", [1, 4_000_000_000])
def test_clocks_decide_nothing_of_what_this_machine_has_begun(tmp_path: Path, when: int) -> None:
    dead, abroad = Attempt(tmp_path).folder, tmp_path / ".attempt-elsewhere-1-00000000"
    with held(tmp_path) as attempt:
        for folder in (dead, abroad):
            folder.mkdir()
        for path in (dead, abroad, attempt.begin(), attempt.folder / "lock"):
            os.utime(path, (when, when))
        assert set(sweep(tmp_path)) == {attempt.folder.name} | ({abroad.name} if when > 1 else set())
    assert not dead.exists()


def test_a_case_that_can_not_be_placed_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        if "overlay" in target.parts:
            raise OSError(errno.ENOSPC, "full")
        source.replace(target)

    (tmp_path / "masks").mkdir()
    monkeypatch.setattr(attempts, "move", full)
    with held(tmp_path) as attempt, pytest.raises(OSError, match="full"):
        commit(attempt, "a", "text")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_result_that_is_replaced_comes_back_or_goes(tmp_path: Path) -> None:
    with held(tmp_path) as attempt:
        commit(attempt, "a", "old")
        commit(attempt, "b", "old")
        attempt.set_aside(["a", "b"])
        assert not (tmp_path / "masks" / "a.png").exists()
        attempt.put_back()
        assert texts_of(tmp_path, "a") == ["old"] * 3
        attempt.set_aside(["a", "b"])
        assert commit(attempt, "a", "new")
        attempt.forget()
    assert texts_of(tmp_path, "a") == ["new"] * 3
    assert not (tmp_path / "masks" / "b.png").exists()
    withdraw(tmp_path, record_of(tmp_path, "a"), record_file(tmp_path, "a"))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_where_there_are_no_hard_links_one_wins_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(atomic.os, "link", refuse)
    with held(tmp_path) as attempt:
        assert commit(attempt, "a", "first")
        assert not commit(attempt, "a", "other")
    assert (texts_of(tmp_path, "a"), record_of(tmp_path, "a").host) == (["first"] * 3, "first")
    assert hidden(tmp_path) == []


def test_an_answer_that_was_lost_is_no_defeat(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    os.link(tmp_path / "a", tmp_path / "b")
    assert atomic.claim(tmp_path / "a", tmp_path / "b")
    (tmp_path / "c").write_text("x")
    assert not atomic.claim(tmp_path / "c", tmp_path / "b")


def test_every_name_has_a_record_of_its_own() -> None:
    names = ["a", "a:b", "a-b", "a" * 300, "a" * 301, "ä" * 150, "con?", "a.b"]
    files = {record_file(Path("out"), name) for name in names}
    assert len(files) == len(names)
    assert max(len(file.name.encode()) for file in files) < 255
    assert record_file(Path("out"), "a.b").name == "a.b.json"


def test_a_record_that_is_not_whole_is_none(tmp_path: Path) -> None:
    for text in ("", "{", "[]", '{"name": "a"}'):
        (tmp_path / "a.json").write_text(text)
        assert read_case_record(tmp_path / "a.json") is None
    assert OutputFile(size=1, sha256="").size == 1
