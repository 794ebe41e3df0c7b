"""A time for training: how many steps fit, and what becomes of the schedule and of resumed runs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from medsegdiff.config.run import TrainConfig
from medsegdiff.errors import ConfigError
from medsegdiff.models.checkpoint import LAST, STATE, load_config
from medsegdiff.training.run import Run
from medsegdiff.training.state import Progress
from medsegdiff.training.step import learning_rate
from medsegdiff.training.step_budget import MEASURED, WARM, StepBudget
from medsegdiff.training.train import train
from tests.integration.test_training import progress, stopping_at
from tests.makers import make_folder, small_config


def budget_of(seconds: float, *, done: int = 0) -> StepBudget:
    return StepBudget(TrainConfig(max_minutes=seconds / 60, max_steps=10**9), Progress(step=done))


def settled(budget: StepBudget, times: Iterator[float]) -> tuple[int, int]:
    """Feed steps until the number is settled; give it, and how many it took."""
    for made, seconds in enumerate(times, start=1):
        budget.progress.step += 1
        if budget.spend(seconds):
            assert not budget.open
            return budget.total, made
        assert budget.open
    raise AssertionError


def test_steps_of_equal_length_fill_the_time() -> None:
    assert settled(budget_of(100.0), (0.5 for _ in count())) == (200, WARM + MEASURED)


def test_slow_first_steps_cost_their_time_but_set_no_pace() -> None:
    times = iter([10.0] * WARM + [0.5] * 1000)
    assert settled(budget_of(1000.0), times) == (WARM + (1000 - 10 * WARM) * 2, WARM + MEASURED)


def test_the_pace_is_that_of_the_steps_after_the_first() -> None:
    """Here one step is measured, against three that are slower."""
    times = iter([10.0] * WARM + [0.5] * 1000)
    assert settled(budget_of(100.0), times) == (WARM + 1 + (100 - 30.5) / 0.5, WARM + 1)


def test_a_hiccup_among_the_measured_steps_sets_no_pace() -> None:
    times = iter([0.5] * WARM + [20.0] + [0.5] * 1000)
    assert settled(budget_of(1000.0), times)[0] == 1 + (1000 - 20) * 2


@pytest.mark.parametrize(("share", "mean"), [(0.5, 0.75), (0.25, 0.875)])
def test_steps_in_which_the_condition_model_learns_alone_cost_what_they_cost(share: float, mean: float) -> None:
    """Here half of a second against a whole one."""
    config = TrainConfig(max_minutes=10.0, max_steps=10**9, anchor_alone=share)
    budget = StepBudget(config, Progress())
    total, made = settled(budget, (0.5 if number % 2 == 0 else 1.0 for number in count(1)))
    assert total * mean == pytest.approx(600, rel=0.01)
    chosen = []
    for budget.progress.step in range(made, total):
        chosen.append(budget.alone)
    assert chosen == sorted(chosen, reverse=True)  # the first ones
    assert sum(chosen) == pytest.approx(share * total, abs=made)


def test_steps_in_which_the_condition_model_learns_alone_are_known_without_a_watch() -> None:
    budget = StepBudget(TrainConfig(max_steps=10, anchor_alone=0.4))
    found = [budget.alone for budget.progress.step in range(10)]
    assert found == [True] * 4 + [False] * 6
    assert not StepBudget(TrainConfig(max_steps=10)).alone


@pytest.mark.parametrize("about", [{"max_steps": 1000}, {"max_steps": 1000, "max_minutes": 8.0}])
def test_a_run_that_goes_on_for_longer_does_not_stop_the_diffusion_model_again(about: dict[str, float]) -> None:
    budget = StepBudget(TrainConfig(anchor_alone=0.5, **about), Progress(step=10, validated=10))
    assert not any(budget.alone for budget.progress.step in range(10, 100))
    assert StepBudget(TrainConfig(anchor_alone=0.5, **about), Progress(step=11)).alone


def test_a_short_time_is_not_spent_on_measuring() -> None:
    assert settled(budget_of(20.0), (2.0 for _ in count())) == (10, WARM + 1)


def test_a_time_that_is_over_already_ends_with_the_steps_made() -> None:
    assert settled(budget_of(1.0), (2.0 for _ in count())) == (WARM + 1, WARM + 1)


def test_steps_made_before_count_at_the_same_pace() -> None:
    assert settled(budget_of(100.0, done=40), (0.5 for _ in count()))[0] == 200


def test_without_a_time_the_number_is_that_asked_for_and_no_watch_runs() -> None:
    def never() -> float:
        raise AssertionError

    budget = StepBudget(TrainConfig(max_steps=7), clock=never)
    budget.start()
    assert (budget.total, budget.open) == (7, False)


class Clock:
    """A clock on which each step takes two seconds: it is read before and after."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 2.0
        return self.now


TIMED = (f"train.max_minutes={16 / 60}", "train.max_steps=1000", "train.val_every=1000", "train.save_every=1000")


def test_a_run_for_a_time_ends_with_its_schedule_and_resumes_to_the_same(
    tmp_path: Path,
) -> None:
    """16 seconds hold 8 steps of two; the learning rate is that of 8 steps from the moment that this is known."""
    data = make_folder(tmp_path / "data")
    outcome = train(data, tmp_path / "whole", small_config(*TIMED), clock=Clock())
    assert (outcome.reason, outcome.step, outcome.best_step) == ("finished", 8, 8)
    lines = Run(tmp_path / "whole").lines()
    assert [(line["step"], line["settled"], line["step_seconds"]) for line in lines if "settled" in line] == [(4, 8, 2)]
    assert load_config(tmp_path / "whole").train.max_steps == 1000
    eight = small_config("train.max_steps=8").train
    assert [line["lr"] for line in lines if "lr" in line] == [pytest.approx(learning_rate(8, eight))]

    patch = stopping_at(6)
    assert train(data, tmp_path / "parts", small_config(*TIMED), clock=Clock()).reason == "interrupted"
    patch.undo()
    again = train(data, tmp_path / "parts", small_config(*TIMED), resume=True, clock=lambda: 0.0)
    assert again.step == 8  # a settled run does not look at the time
    for file in (STATE, LAST):
        whole, parts = (load_file(tmp_path / run / file) for run in ("whole", "parts"))
        assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert progress(tmp_path / "whole") == progress(tmp_path / "parts")


def test_a_longer_time_goes_on_and_max_steps_stays_a_limit(tmp_path: Path) -> None:
    data = make_folder(tmp_path / "data")
    assert train(data, tmp_path / "run", small_config(*TIMED), clock=Clock()).step == 8
    again = train(data, tmp_path / "run", small_config(*TIMED), resume=True)
    assert (again.reason, again.step) == ("finished already", 8)
    longer = small_config(*TIMED, "train.max_minutes=10", "train.max_steps=14")
    assert train(data, tmp_path / "run", longer, resume=True, clock=Clock()).step == 14


def test_no_time_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.max_minutes: .*greater than 0"):
        small_config("train.max_minutes=0")
