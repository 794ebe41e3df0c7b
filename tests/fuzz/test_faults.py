"""Disks that are full, broken or read-only, and signals: told in words, and done again with the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.fuzz.conftest import COUNTS
from tests.fuzz.faulty import NIGHTLY, WORKS, Converting, Helper, Replacing, Training, Work, differing, helper_in
from tests.fuzz.promise import check_whole, contents

TOLD = ("No space left", "Input/output error", "Read-only file system", "File too large", "can't be written")
"""Words of which one has to be said when files can't be written."""


@pytest.fixture(scope="module")
def helper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Helper]:
    with helper_in(tmp_path_factory.mktemp("helper")) as helper:
        yield helper


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Kill each kind of work; in ``make test``, where few points are asked for, other faults strike one of them."""
    if "work" in metafunc.fixturenames:
        all_of_them = nightly(metafunc.config) or metafunc.function is test_killed_work_is_done_again_with_the_same_bits
        works = (NIGHTLY if nightly(metafunc.config) else WORKS) if all_of_them else (Converting,)
        metafunc.parametrize("work", works, indirect=True, scope="module", ids=lambda work: work.name)


def nightly(config: pytest.Config) -> bool:
    return config.option.fuzz_kills >= 10


@pytest.fixture(scope="module")
def work(
    request: pytest.FixtureRequest, helper: Helper, trained: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Work:
    return request.param(tmp_path_factory.mktemp("work"), helper, trained[0])


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    return request.config.option.fuzz_kills


def points(work: Work, number: int) -> list[int]:
    """Spread points over all changes."""
    inner = np.linspace(0, work.changes + 1, min(number, work.changes) + 2)[1:-1]
    return sorted(set(inner.round().astype(int).tolist()))


def check_again(work: Work, out: Path, where: str) -> None:
    """Do it again: nothing is missing, and all bits are those of work that was not disturbed."""
    assert contents(work.data) == work.inputs, where
    work.check_left(out)
    done = work.again(out)
    assert done.code == 0, f"{where}: {done.said}"
    assert not differing(work.results(out), work.truth), where


def test_killed_work_is_done_again_with_the_same_bits(work: Work, kills: int) -> None:
    for at in points(work, kills):
        out = work.place(f"killed-{at}")
        assert work.start(out, fault="killed", at=at).code == -9
        check_again(work, out, f"killed at change {at} of {work.changes}")
        COUNTS[f"kill -9 of {work.name}"] += 1


@pytest.mark.parametrize("fault", ["full disk", "broken disk"])
def test_a_disk_that_fails_is_told_and_nothing_is_half_written(work: Work, fault: str, kills: int) -> None:
    for at in points(work, kills // 4 or 1):
        out, where = work.place(f"{fault}-{at}"), f"{fault} at change {at} of {work.changes}"
        struck = work.start(out, fault=fault, at=at)
        assert "Traceback" not in struck.said, f"{where}: {struck.said}"
        assert struck.code in (0, 1, 3), f"{where}: {struck.said}"
        assert any(words in struck.said for words in TOLD) or struck.code == 0, f"{where}: {struck.said}"
        if struck.code == 0:
            assert not differing(work.results(out), work.truth), where
        check_whole(out)
        check_again(work, out, where)
        COUNTS[f"{fault}, {work.name}"] += 1


def test_what_asks_to_end_is_heeded_and_the_rest_is_done_later(work: Work, kills: int) -> None:
    for at in points(work, kills // 4 or 1):
        out, where = work.place(f"terminated-{at}"), f"SIGTERM at change {at} of {work.changes}"
        struck = work.start(out, fault="terminated", at=at)
        assert struck.code in ((0, 130, 143) if isinstance(work, Training) else (143,)), f"{where}: {struck.said}"
        if struck.code == 0:  # it was making the last step
            assert not differing(work.results(out), work.truth), where
        assert "Traceback" not in struck.said, f"{where}: {struck.said}"
        check_whole(out)
        if struck.code:
            check_again(work, out, where)
        COUNTS[f"SIGTERM, {work.name}"] += 1


def test_a_folder_that_is_read_only_stays_as_it_is(work: Work) -> None:
    out = work.place("read-only")
    struck = work.start(out, fault="read-only")
    assert struck.code == 1
    assert "Read-only file system" in struck.said
    assert "Traceback" not in struck.said
    assert not out.exists() or isinstance(work, Replacing)


def test_a_share_that_knows_no_permissions_is_written_to(work: Work) -> None:
    out = work.place("no chmod")
    assert work.start(out, fault="no chmod").code == 0
    assert not differing(work.results(out), work.truth)


def test_files_that_can_not_grow_are_told_and_leave_nothing_behind(work: Work) -> None:
    largest = max(file.stat().st_size for file in work.whole.rglob("*") if file.is_file())
    out = work.place("small files")
    struck = work.start(out, fault="small files", at=largest // 2)
    assert struck.code in (1, 3)
    assert any(words in struck.said for words in TOLD), struck.said
    assert "Traceback" not in struck.said
    check_whole(out)
    check_again(work, out, "files that can't grow")


def test_a_loading_process_that_is_killed_is_told_and_training_resumes(
    helper: Helper, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if not nightly(request.config):
        pytest.skip("takes three trainings; 'make fuzz' has it")

    class WithWorker(Training):
        settings = ("train.num_workers=1",)

    work = WithWorker(tmp_path, helper, tmp_path)
    out = work.place("no worker")
    struck = work.start(out, fault="worker killed", at=work.changes // 2)
    assert struck.code == 1, struck.said
    assert "Traceback" not in struck.said
    check_again(work, out, "a loading process was killed")
