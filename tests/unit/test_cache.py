"""The file of prepared cases: what comes out is what went in, in every process, and it is gone afterwards."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medsegdiff.data.cache import CaseFile
from medsegdiff.data.placement import Placement
from medsegdiff.data.transforms import Prepared
from medsegdiff.errors import ConfigError


def make_case(name: str, *, channels: int = 1, side: int = 8, raters: int = 1, ignored: bool = False) -> Prepared:
    generator = torch.Generator().manual_seed(hash((name, channels, side)) % 2**31)
    image = torch.randn(channels, side, side, generator=generator)
    mask = (torch.rand(raters, 2, side, side, generator=generator) > 0.5).to(torch.uint8)
    nobody = mask[:, 0] if ignored else None
    return Prepared(name, image, mask, Placement((side, side), (side, side), (side, side)), nobody)


def same(a: Prepared, b: Prepared) -> bool:
    parts = ((a.image, b.image), (a.mask, b.mask), (a.ignored, b.ignored))
    return a.placement == b.placement and all(torch.equal(x, y) if x is not None else y is None for x, y in parts)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 17), st.integers(1, 3), st.booleans()), min_size=1, max_size=6)
)
def test_what_comes_out_is_what_went_in(shapes: list[tuple[int, int, int, bool]]) -> None:
    file = CaseFile(1e9)
    for number, (channels, side, raters, ignored) in enumerate(shapes):
        case = make_case(str(number), channels=channels, side=side, raters=raters, ignored=ignored)
        assert file.add(case, str(number))
        assert same(file[str(number)], case)  # while the file still grows
    for number, (channels, side, raters, ignored) in enumerate(shapes):
        assert same(
            file[str(number)], make_case(str(number), channels=channels, side=side, raters=raters, ignored=ignored)
        )


def test_a_change_stays_where_it_was_made() -> None:
    file = CaseFile(1e9)
    file.add(make_case("a"), "a")
    other = pickle.loads(pickle.dumps(file))
    file["a"].image.zero_()
    assert same(other["a"], make_case("a"))


def _spawned(file: CaseFile, answers: multiprocessing.SimpleQueue) -> None:  # type: ignore[type-arg]
    case = file["a"]
    answers.put((float(case.image.sum()), file.add(case, "again")))


def test_a_spawned_process_reads_and_does_not_write(tmp_path: Path) -> None:
    file = CaseFile(1e9, folder=str(tmp_path))
    file.add(make_case("a"), "a")
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    process = context.Process(target=_spawned, args=(file, answers))
    process.start()
    total, written = answers.get()
    process.join()
    assert total == pytest.approx(float(file["a"].image.sum()), abs=1e-4)
    assert not written
    assert file.path.exists()


def _look(file: CaseFile, answers: multiprocessing.SimpleQueue) -> None:  # type: ignore[type-arg]
    torch.set_num_threads(1)
    answers.put((same(file["a"], make_case_again(file)), file.add(make_case("b"), "b")))


def make_case_again(file: CaseFile) -> Prepared:
    return pickle.loads((file.path.parent / "truth").read_bytes())


def test_a_forked_process_reads_and_does_not_write(tmp_path: Path) -> None:
    file = CaseFile(1e9, folder=str(tmp_path))
    file.add(make_case("a"), "a")
    (file.path.parent / "truth").write_bytes(pickle.dumps(make_case("a")))
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    process = context.Process(target=_look, args=(file, answers))
    process.start()
    read, written = answers.get()
    process.join()
    assert (read, written) == (True, False)
    assert file.path.exists()  # the other process has ended, and has not taken it along


def test_room_is_kept_to_and_the_folder_is_gone_in_the_end(tmp_path: Path) -> None:
    file = CaseFile(2000.0, folder=str(tmp_path))
    case = make_case("a", side=8)
    assert [file.add(case, name) for name in "abcdefgh"].count(True) == pytest.approx(
        2000 // (case.image.nbytes + case.mask.nbytes + 64)
    )
    assert list(tmp_path.iterdir())
    del file
    gc.collect()
    assert not list(tmp_path.iterdir())


def _killed(folder: str) -> None:
    file = CaseFile(1e9, folder=folder)
    file.add(make_case("a"), "a")
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_process_has_left_goes_and_what_is_in_use_stays(tmp_path: Path) -> None:
    used = CaseFile(1e9, folder=str(tmp_path))
    used.add(make_case("a"), "a")
    process = multiprocessing.get_context("spawn").Process(target=_killed, args=(str(tmp_path),))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    (tmp_path / "medsegdiff-plan").mkdir()
    fresh = CaseFile(1e9, folder=str(tmp_path))
    assert set(tmp_path.iterdir()) == {used.path.parent, fresh.path.parent, tmp_path / "medsegdiff-plan"}
    assert same(used["a"], make_case("a"))


def test_a_folder_that_is_not_there_is_named_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.cache_dir is .*gone, where .*\(No such file or directory\)\. Name a"):
        CaseFile(1e9, folder=str(tmp_path / "gone"))
