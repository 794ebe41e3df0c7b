"""Several processes at one folder: each case once, and the results of one process, byte for byte."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch.distributed

from medsegdiff import Segmenter
from medsegdiff.data.dataset import CaseFiles, no_progress
from medsegdiff.errors import ConfigError
from medsegdiff.inference import launched
from medsegdiff.inference.case_record import read_case_record, record_files
from medsegdiff.inference.collect import collect
from medsegdiff.inference.inputs import find_inputs
from medsegdiff.inference.launched import Launched, team_of
from medsegdiff.inference.saving import Finished
from medsegdiff.inference.team import Part, part_of
from tests.makers import write_png
from tests.results import contents, segmented

COUNT = 6


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(COUNT):
        write_png(folder / f"scan{number}.png", rng.integers(0, 256, (24, 16 + 2 * number), dtype=np.uint8))
    return folder


@pytest.fixture(scope="module")
def whole(segmenter: Segmenter, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What one process makes."""
    out = tmp_path_factory.mktemp("whole") / "out"
    segmented(segmenter, [photos], out)
    return contents(out)


def test_parts_make_what_one_process_makes(
    segmenter: Segmenter, photos: Path, whole: dict[str, object], tmp_path: Path
) -> None:
    first, _ = segmented(segmenter, [photos], tmp_path / "out", team=Part(index=1, count=2))
    assert 0 < first.made < COUNT
    told = f"{first.made} of {COUNT} images have a record, {COUNT - first.made} belong to other parts and have none yet"
    assert told in first.rest
    assert collect(tmp_path / "out").missing == COUNT - first.made
    again, said = segmented(segmenter, [photos], tmp_path / "out", team=Part(index=1, count=2))
    assert (again.made, f"{first.made} are done; 0 are to do" in said) == (0, True)
    other, _ = segmented(segmenter, [photos], tmp_path / "out", team=Part(index=2, count=2))
    assert (first.made + other.made, other.rest) == (COUNT, "")
    assert contents(tmp_path / "out") == whole


def test_who_collects_while_others_end_does_not_tell_of_less(
    segmenter: Segmenter, photos: Path, whole: dict[str, object], tmp_path: Path
) -> None:
    out, others = tmp_path / "out", iter([Part(index=2, count=2)])
    segmented(segmenter, [photos], out, team=Part(index=1, count=2))

    def slow(items: Sequence[object], what: str) -> Iterable[object]:
        yield from items
        for team in others:
            segmented(segmenter, [photos], out, team=team)

    assert collect(out, track=slow).missing == 0
    assert contents(out) == whole


def test_what_a_leader_was_to_replace_is_back_if_it_is_interrupted(
    segmenter: Segmenter, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    segmented(segmenter, [photos], out, seed=3)

    def interrupted(items: Sequence[object], what: str) -> Iterable[object]:
        yield from items[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        team = Launched(torch.distributed.HashStore(), 0, 1)
        segmented(segmenter, [photos], out, team=team, track=interrupted)
    seeds = Counter(read_case_record(file).settings.options["seed"] for file in record_files(out))
    assert seeds.total() == COUNT
    assert seeds[3] >= 3
    assert collect(out).left_out.total() in (seeds[0], seeds[3])
    assert not list(out.glob(".*"))


def at_once(segmenter: Segmenter, photos: Path, out: Path, world: int, **options: object) -> list[Finished]:
    """Work in threads as processes of a launcher do."""
    store, found = torch.distributed.HashStore(), {}

    def work(rank: int) -> None:
        found[rank] = segmented(segmenter, [photos], out, team=Launched(store, rank, world), **options)[0]

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[rank] for rank in range(world)]


def test_processes_of_a_launcher_make_what_one_makes(
    segmenter: Segmenter, photos: Path, whole: dict[str, object], tmp_path: Path
) -> None:
    made = at_once(segmenter, photos, tmp_path / "out", 3)
    assert sum(one.made for one in made) == COUNT
    assert made[0].tally.count == COUNT
    assert [one.rest for one in made[1:]] == ["The first process tells of all."] * 2
    assert contents(tmp_path / "out") == whole


def test_a_launcher_goes_on_and_replaces_what_is_not_asked_any_more(
    segmenter: Segmenter, photos: Path, whole: dict[str, object], tmp_path: Path
) -> None:
    segmented(segmenter, [photos], tmp_path / "out", team=Part(index=1, count=2), seed=3)
    assert sum(one.made for one in at_once(segmenter, photos, tmp_path / "out", 2)) == COUNT
    assert contents(tmp_path / "out") == whole


def test_what_a_dead_process_had_taken_is_done_by_the_first(
    segmenter: Segmenter,
    photos: Path,
    whole: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(launched, "SILENT", 0.1)
    monkeypatch.setattr(launched, "GREET", 0.01)
    store = torch.distributed.HashStore()
    leader, other = Launched(store, 0, 2), Launched(store, 1, 2)
    agreed = leader.agreed

    def with_another(files: Sequence[CaseFiles], settings: str) -> Sequence[CaseFiles]:
        found = agreed(files, settings)
        mine = other.pulled(other.agreed(files, settings), no_progress)
        assert len([next(mine), next(mine)]) == 2
        other._ended.set()
        return found

    monkeypatch.setattr(leader, "agreed", with_another)
    finished, _ = segmented(segmenter, [photos], tmp_path / "out", team=leader)
    assert finished.made == COUNT
    assert "ended before their work was done" in caplog.text
    assert contents(tmp_path / "out") == whole


def test_the_largest_files_come_first_and_progress_is_that_of_all(photos: Path) -> None:
    store, shown = torch.distributed.HashStore(), list[int]()

    def track(items: Sequence[object], what: str) -> Iterable[object]:
        for number, item in enumerate(items, start=1):
            shown.append(number)
            yield item

    first, other = Launched(store, 0, 2), Launched(store, 1, 2)
    ordered = first.agreed(find_inputs([photos]), "key")
    sizes = [case.images[0].stat().st_size for case in ordered]
    assert sizes == sorted(sizes, reverse=True)
    assert other.agreed(find_inputs([photos]), "key") == ordered
    mine, theirs = first.pulled(ordered, track), other.pulled(ordered, track)
    taken = [next(mine).name, next(theirs).name, next(theirs).name]
    assert shown == [1]
    assert [*taken, *(case.name for case in mine)] == [case.name for case in ordered]
    assert shown == list(range(1, COUNT + 1))
    with pytest.raises(ConfigError, match="process 2 of 2 has other settings than the first"):
        other.agreed(find_inputs([photos]), "another")
    with pytest.raises(ConfigError, match="has other images than the first"):
        other.agreed(find_inputs([photos / "scan0.png"]), "key")
    for team in (first, other):
        team._ended.set()
        team._left.set()


def test_what_was_counted_before_a_launcher_began_anew_does_not_count(photos: Path) -> None:
    store, files = torch.distributed.HashStore(), find_inputs([photos])
    for some in (files, files[:4]):
        first, other = Launched(store, 0, 2), Launched(store, 1, 2)
        ordered = first.agreed(some, "key")
        assert other.agreed(files, "key") == ordered
        taken = [case for team in (other, first) for case in team.pulled(ordered, no_progress)]
        assert taken == list(ordered)
        other.over()
        first.over()


ARRAY = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "1"}


def test_parts_are_read() -> None:
    assert part_of("2/8") == Part(index=2, count=8)
    assert part_of("array", ARRAY | {"SLURM_ARRAY_TASK_STEP": "2"}) == Part(index=4, count=4)
    for wrong in ("0/4", "5/4", "1", "a/b", "1/0"):
        with pytest.raises(ConfigError, match=r"allowed are 1/8 … 8/8"):
            part_of(wrong)
    with pytest.raises(ConfigError, match="array with gaps"):
        part_of("array", ARRAY)
    with pytest.raises(ConfigError, match="'SLURM_ARRAY_TASK_ID' is missing"):
        part_of("array", {})


def test_parts_are_alike_and_hold_each_name_once(photos: Path) -> None:
    files = find_inputs([photos])
    parts = [Part(index=index, count=3).own(files) for index in (1, 2, 3)]
    assert sorted(case.name for part in parts for case in part) == sorted(case.name for case in files)


def test_launchers_are_recognised() -> None:
    srun = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "0"}
    assert launched.launched({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}) == (3, 8, 1)
    assert launched.launched({"RANK": "0", "WORLD_SIZE": "1"}) is None
    assert launched.launched({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}) is None  # the script of sbatch itself
    assert team_of(None, srun) == Part(index=2, count=2, local=0)
    assert team_of(None, {}).alone
    with pytest.raises(ConfigError, match="a launcher has started 2 processes. Take one of both"):
        team_of("1/2", srun)


def test_what_others_write_is_not_replaced(segmenter: Segmenter, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="other processes write there too"):
        segmented(segmenter, [photos], tmp_path / "out", team=Part(index=1, count=2), overwrite=True)
