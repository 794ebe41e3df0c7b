"""Training steps: how long they wait for data that are late, and what memory they take."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from medsegdiff.benchmark import training
from medsegdiff.benchmark.training import TrainingConditions, rates, report_training, training_config
from medsegdiff.data.loader import TrainingStream, as_batch, collate
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


def test_steps_change_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is timed is training: the losses of the same batch fall."""
    config = small_config("data.channels=1", "data.task=binary", "data.classes=[lesion]", "train.learning_rate=0.01")
    losses: list[float] = []
    objective = training.objective_of(config, torch.device("cpu"))

    def noted(*arguments: Any) -> Any:
        losses.append(float((found := objective(*arguments)).total.detach()))
        return found

    monkeypatch.setattr(training, "objective_of", lambda *_: noted)
    step = training.make_step(config, torch.device("cpu"))
    stream = training.phantom_stream(config)
    samples = [stream[position] for position in range(4)]
    batch = as_batch(collate(samples))
    for _ in range(8):
        step(batch)
    assert losses[-1] < 0.9 * losses[0]
