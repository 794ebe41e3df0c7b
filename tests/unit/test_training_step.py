"""The step of training by itself: a network and batches are all it takes."""

from __future__ import annotations

import math

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from medsegdiff.training.state import Progress
from medsegdiff.training.step import TrainingStep, learning_rate
from medsegdiff.training.step_budget import StepBudget
from medsegdiff.types import Batch
from tests.makers import small_config

ABOUT = ("data.channels=1", "data.task=binary", "data.classes=[lesion]", "train.batch_size=2", "train.warmup_steps=0")


def training_step(*overrides: str) -> TrainingStep:
    config = small_config(*ABOUT, *overrides)
    AcceleratorState._reset_state(reset_partial_state=True)
    return TrainingStep(config, Accelerator(cpu=True, gradient_accumulation_steps=config.train.accumulate))


def batch(number: int, *, brightness: float = 1.0) -> Batch:
    generator = torch.Generator().manual_seed(number)
    image = brightness * torch.randn(2, 1, 32, 32, generator=generator)
    return Batch(image, (image > 0).float(), (2 * number, 2 * number + 1))


def weights(step: TrainingStep) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in step.network.parameters()])


def test_weights_move_with_every_second_batch_where_two_make_a_step() -> None:
    step = training_step("train.accumulate=2")
    begun = weights(step)
    losses = step(batch(0))
    assert torch.equal(weights(step), begun)
    assert losses.total.isfinite()
    step(batch(1))
    moved = (weights(step) - begun).abs().max()
    assert 0 < moved < 2 * step.config.train.learning_rate  # AdamW moves no weight further in its first step
    assert (step.progress.step, step.progress.position) == (1, 4)


def test_a_gradient_that_is_not_finite_moves_nothing_and_is_counted() -> None:
    step = training_step()
    step(batch(0))
    before, average = weights(step), [p.clone() for p in step.average.parameters()]
    step(batch(1, brightness=math.nan))
    assert torch.equal(weights(step), before)
    assert all(torch.equal(a, b) for a, b in zip(average, step.average.parameters(), strict=True))
    step(batch(2, brightness=math.nan))
    assert (step.progress.step, step.progress.skipped, step.progress.skipped_in_row) == (3, 2, 2)
    step(batch(3))
    assert not torch.equal(weights(step), before)
    assert (step.progress.step, step.progress.skipped_in_row) == (4, 0)


@pytest.mark.parametrize("settled", [0, 4])
def test_the_learning_rate_ends_with_the_steps_that_fit_into_the_time(settled: int) -> None:
    config = small_config(*ABOUT, "train.max_steps=10", "train.max_minutes=1").train
    step = training_step("train.max_steps=10")
    step.budget = StepBudget(config, Progress(settled=settled, settled_for=1.0))
    step(batch(0))
    used = step.optimizer.param_groups[0]["lr"]
    assert used == learning_rate(0, config)
    step(batch(1))
    used = step.optimizer.param_groups[0]["lr"]
    assert used == learning_rate(1, config, num_steps=settled or 10)
    assert (used < learning_rate(1, config)) == bool(settled)
