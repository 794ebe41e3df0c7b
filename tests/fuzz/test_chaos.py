"""Two processes at the same cases, killed again and again at random: each case once, whole, and nothing left behind."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fuzz.conftest import COUNTS
from tests.fuzz.faulty import Sharing, Struck, differing, helper_in
from tests.fuzz.promise import check_whole


def test_whatever_is_killed_each_case_is_there_once(
    trained: tuple[Path, Path], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    kills, seed = request.config.option.fuzz_kills, request.config.option.fuzz_seed
    if kills < 10:
        pytest.skip("takes a minute; 'make fuzz' has it")
    rng = random.Random(seed)
    with ExitStack() as stack:
        helpers = []
        for number in range(2):
            (tmp_path / f"helper{number}").mkdir()
            helpers.append(stack.enter_context(helper_in(tmp_path / f"helper{number}")))
        work = Sharing(tmp_path / "work", helpers[0], trained[0])
        pool = stack.enter_context(ThreadPoolExecutor(2))
        out, round_ = work.place("out-0"), 0
        for number in range(kills):
            points = [rng.randint(1, work.changes) for _ in helpers]

            def struck(place: int, out: Path = out, points: list[int] = points) -> Struck:
                command = work.command(out)
                return helpers[place].run(*command, inside=out, fault="killed", at=points[place])

            ended = list(pool.map(struck, range(2)))
            codes = [one.code for one in ended]
            assert set(codes) <= {0, -9}, f"kill {number} at {points} of {work.changes}: {ended}"
            COUNTS["kill -9 of one of two processes at a folder"] += codes.count(-9)
            if 0 in codes or number == kills - 1:  # done: nothing is missing
                done = work.again(out)
                assert done.code == 0, done.said
                check_whole(out)
                assert not differing(work.results(out), work.truth), f"kill {number} at {points}"
                out, round_ = work.place(f"out-{number + 1}"), round_ + 1
    assert round_ > 1
