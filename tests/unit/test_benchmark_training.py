"""Training steps: how long they wait for data that are late, and what memory they take."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from medsegdiff.benchmark.timing import stopwatch
from medsegdiff.benchmark.training import (
    WARM,
    TrainingConditions,
    rates,
    report_training,
    take_steps,
    trainer_step,
    training_config,
)
from medsegdiff.data.loader import TrainingStream
from tests.makers import small_config

LATE = 0.3
"""Seconds by which each sample comes late."""


def test_the_time_spent_waiting_for_late_samples_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    on_time = TrainingStream.__getitem__

    def late(stream: TrainingStream, position: int) -> dict[str, Any]:
        time.sleep(LATE)
        return on_time(stream, position)

    monkeypatch.setattr(TrainingStream, "__getitem__", late)
    about = ("data.channels=1", "data.task=binary", "data.classes=[lesion]", "train.max_steps=3", "train.batch_size=2")
    found = report_training(small_config(*about), torch.device("cpu"))
    step = found["batch"] / found["images_per_second"]  # the mean
    assert found["steps"] == 3
    assert found["waiting_share"] * step == pytest.approx(2 * LATE, rel=0.3)
    assert found["step_seconds"] > 2 * LATE


def test_rates_of_steps_by_hand() -> None:
    """A step of 6 seconds weighs on the speed, not on the median."""
    found = rates([1.0, 1.0, 6.0], [0.5, 0.5, 3.0], batch_size=4)
    assert found == {"steps": 3, "images_per_second": 1.5, "step_seconds": 1.0, "waiting_share": 0.5}


def test_what_is_asked_for_is_trained_and_else_the_preset_s_own() -> None:
    own = training_config("v2-tiny", TrainingConditions())
    assert (own.data.image_size, own.train.batch_size, own.train.precision) == (128, 16, "auto")
    asked = training_config("v2-tiny", TrainingConditions(64, 3, 7, 2, None, "bf16"))
    train = asked.train
    assert (asked.data.image_size, train.batch_size, train.max_steps, train.num_workers) == (64, 3, 7, 2)
    assert train.precision == "bf16"


def test_what_is_timed_is_the_trainer_s_step_and_it_trains() -> None:
    config = small_config("data.channels=1", "data.task=binary", "data.classes=[lesion]", "train.max_steps=3")
    watch, device = stopwatch(torch.device("cpu")), torch.device("cpu")
    begun, step = trainer_step(config, device), take_steps(config, device, watch)
    assert step.progress.step == WARM + 3 == len(watch.spans["step"]) == len(watch.spans["wait"])
    pairs = list(zip(begun.network.parameters(), step.network.parameters(), strict=True))
    assert any(not torch.equal(old, new) for old, new in pairs)


def test_each_batch_is_a_step_whatever_the_preset_accumulates() -> None:
    about = ("data.channels=1", "data.task=binary", "data.classes=[lesion]", "train.max_steps=1", "train.accumulate=4")
    cpu = torch.device("cpu")
    assert take_steps(small_config(*about), cpu, stopwatch(cpu)).progress.step == WARM + 1
