"""The step of training by itself: a network and batches are all it takes."""

from __future__ import annotations

import math

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState

from medsegdiff.config.run import TrainConfig
from medsegdiff.hardware import TF32
from medsegdiff.training import step as training
from medsegdiff.training.optimizer import optimizer_for
from medsegdiff.training.state import Progress
from medsegdiff.training.step import TrainingStep, learning_rate
from medsegdiff.training.step_budget import StepBudget
from medsegdiff.types import Batch
from tests.makers import small_config, small_network

ABOUT = ("data.channels=1", "data.task=binary", "data.classes=[lesion]", "train.batch_size=2", "train.warmup_steps=0")


def training_step(*overrides: str, network: str | None = None) -> TrainingStep:
    config = small_config(*ABOUT, *overrides) if network is None else small_network(network, *ABOUT, *overrides)
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
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


def test_the_condition_model_learns_alone_in_the_first_steps() -> None:
    step = training_step("train.anchor_alone=0.5", "train.max_steps=4")

    def parts() -> list[torch.Tensor]:
        network = step.network
        return [
            torch.cat([p.detach().flatten().clone() for p in part.parameters()])
            for part in (network.condition_model, network.diffusion_model)
        ]

    for number, is_alone in enumerate((True, True, False, False)):
        before = parts()
        losses = step(batch(number))
        moved = [not torch.equal(a, b) for a, b in zip(before, parts(), strict=True)]
        assert moved == [True, not is_alone]
        assert (losses.noise is None) == is_alone
        assert set(losses.parts()) == {"loss", "loss_anchor"} | (set() if is_alone else {"loss_noise"})
    assert step.progress.step == 4


def test_means_are_those_of_the_batches_that_have_a_number() -> None:
    means = training.RunningMeans()
    means.add(a=torch.tensor(1.0), b=torch.tensor(5.0))
    means.add(a=torch.tensor(3.0))
    assert means.take(lambda values: values) == {"a": 2.0, "b": 5.0}
    means.add(a=torch.tensor(7.0))
    assert means.take(lambda values: values) == {"a": 7.0}


@pytest.mark.parametrize(
    ("optimizer", "skipping"), [("adamw", {"cpu"}), ("sgd", {"cpu"}), ("adamw", set())], ids=["adamw", "sgd", "waiting"]
)
def test_a_gradient_that_is_not_finite_moves_nothing_and_is_counted(
    optimizer: str, skipping: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SKIPPING", skipping)
    step = training_step(f"train.optimizer={optimizer}")
    step(batch(0))
    before, average = weights(step), [p.clone() for p in step.average.parameters()]
    step(batch(1, brightness=math.nan))
    assert torch.equal(weights(step), before)
    assert all(torch.equal(a, b) for a, b in zip(average, step.average.parameters(), strict=True))
    step(batch(2, brightness=math.nan))
    step.count_skipped()
    assert (step.progress.step, step.progress.skipped, step.progress.skipped_in_row) == (3, 2, 2)
    step(batch(3))
    assert not torch.equal(weights(step), before)
    step(batch(4, brightness=math.nan))
    step(batch(5))
    step.count_skipped()
    assert (step.progress.step, step.progress.skipped, step.progress.skipped_in_row) == (6, 3, 0)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_training_whose_steps_were_skipped_goes_on_as_if_they_had_not_been(optimizer: str) -> None:
    """The moments of the optimizer and the average neither move nor age, from the very first step on."""
    asked = (f"train.optimizer={optimizer}", "train.lr_schedule=constant", "train.weight_decay=0.1")
    step, other = training_step(*asked), training_step(*asked)
    for number in (0, 1, 2):
        step(batch(100 + number, brightness=math.nan))
        for of in (step, other):
            of(batch(number))
    assert torch.equal(weights(step), weights(other))
    moments = [[v for of in s.optimizer.state_dict()["state"].values() for v in of.values()] for s in (step, other)]
    assert all(torch.equal(a, b) for a, b in zip(*moments, strict=True))


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


def test_sgd_moves_weights_and_biases_as_nesterov_does_by_hand() -> None:
    """v ← 0.99 v + g and p ← p − η (g + 0.99 v), where g is the gradient and the decay of p."""
    layer = torch.nn.Linear(2, 1).double()
    config = TrainConfig(optimizer="sgd", learning_rate=0.1, weight_decay=0.5)
    optimizer = optimizer_for(layer, config)
    by_hand = [p.detach().clone() for p in layer.parameters()]
    velocity = [torch.zeros_like(p) for p in by_hand]
    for number in range(3):
        x = torch.arange(2.0).double() + number
        optimizer.zero_grad()
        layer(x).sum().backward()
        optimizer.step()
        for p, v, slope in zip(by_hand, velocity, (x, torch.ones(1)), strict=True):
            g = slope + 0.5 * p
            v.mul_(0.99).add_(g)
            p.sub_(0.1 * (g + 0.99 * v))
    for ours, theirs in zip(layer.parameters(), by_hand, strict=True):
        assert torch.allclose(ours, theirs)


@pytest.mark.parametrize("amsgrad", [False, True])
def test_adam_moves_all_parameters_as_torchs_does(amsgrad: bool) -> None:
    layers = [torch.nn.Linear(3, 2) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    config = TrainConfig(optimizer="amsgrad" if amsgrad else "adam", betas=(0.8, 0.95), weight_decay=0.1)
    ours = optimizer_for(layers[0], config)
    theirs = torch.optim.Adam(layers[1].parameters(), 1e-4, (0.8, 0.95), weight_decay=0.1, amsgrad=amsgrad)
    for number in (3, 1, 2):
        for layer, optimizer in zip(layers, (ours, theirs), strict=True):
            optimizer.zero_grad()
            layer(torch.arange(3.0) * number).square().sum().backward()
            optimizer.step()
    assert torch.allclose(layers[0].weight, layers[1].weight, atol=1e-7)
    assert torch.allclose(layers[0].bias, layers[1].bias, atol=1e-7)


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_momentum_of_sgd_is_what_was_asked(nesterov: bool) -> None:
    layers = [torch.nn.Linear(3, 2) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    asked = TrainConfig(optimizer="sgd", momentum=0.9, nesterov=nesterov, learning_rate=0.01, weight_decay=0)
    ours = optimizer_for(layers[0], asked)
    theirs = torch.optim.SGD(layers[1].parameters(), 0.01, momentum=0.9, nesterov=nesterov)
    for _ in range(3):
        for layer, optimizer in zip(layers, (ours, theirs), strict=True):
            optimizer.zero_grad()
            layer(torch.arange(3.0)).square().sum().backward()
            optimizer.step()
    assert torch.allclose(layers[0].weight, layers[1].weight, atol=1e-7)


def test_waves_and_drop_are_schedules_of_torch() -> None:
    for named, theirs in (
        ("waves", lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=20)),
        ("drop", lambda o: torch.optim.lr_scheduler.StepLR(o, step_size=100, gamma=0.2)),
    ):
        config = TrainConfig(lr_schedule=named, learning_rate=0.01, warmup_steps=0, max_steps=200)
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.01)
        schedule = theirs(optimizer)
        for step in range(200):
            assert learning_rate(step, config) == pytest.approx(schedule.get_last_lr()[0], abs=1e-9)
            optimizer.step()
            schedule.step()


def test_the_poly_rate_is_that_of_torch() -> None:
    config = TrainConfig(lr_schedule="poly", learning_rate=0.01, warmup_steps=0, max_steps=50)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.01)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=50, power=0.9)
    for step in range(51):
        assert learning_rate(step, config) == pytest.approx(schedule.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        schedule.step()
    assert learning_rate(25, config) == pytest.approx(0.01 * 0.5**0.9)
    assert learning_rate(10, config, num_steps=20) == learning_rate(25, config)


def test_dropout_follows_from_the_place_of_the_samples_alone() -> None:
    """Processes have batches of their own places, and so has a training that is resumed."""
    step, kept = training_step("model.dropout=0.5", network="medsegdiff-v1"), list[torch.Tensor]()
    for module in step.network.modules():
        if isinstance(module, torch.nn.Dropout2d):
            module.register_forward_hook(lambda _, __, output: kept.append(output.detach().abs().amax((2, 3)) > 0))

    def kept_of(number: int) -> torch.Tensor:
        kept.clear()
        step(batch(number))
        return torch.cat([of.flatten() for of in kept])

    first, other = kept_of(0), kept_of(1)
    assert 0.3 < (first != other).float().mean() < 0.7  # independent at ½
    torch.manual_seed(12345)
    assert torch.equal(kept_of(0), first)


def test_in_fp16_the_loss_is_scaled_and_the_weights_move_as_they_would(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = training_step("train.max_grad_norm=null", "train.optimizer=sgd")
    plain(batch(0))
    accelerator = Accelerator(cpu=True)
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
    monkeypatch.setattr(accelerator, "native_amp", True)
    monkeypatch.setattr(accelerator.state, "_mixed_precision", "fp16")
    step = TrainingStep(plain.config, accelerator)
    begun = weights(step)
    step(batch(0))
    moved, expected = weights(step) - begun, weights(plain) - begun
    assert torch.nn.functional.cosine_similarity(moved, expected, dim=0) > 0.99
    assert 0.9 < moved.norm() / expected.norm() < 1.1
    before = weights(step)
    step(batch(1, brightness=math.nan))
    step.count_skipped()
    assert torch.equal(weights(step), before)
    assert (step.progress.skipped, step.scaler.get_scale()) == (1, 2.0**9)


def test_no_convolution_of_a_step_forward_or_backward_is_rounded_to_tf32() -> None:
    step, seen = training_step(), set[object]()

    def look(*_: object) -> None:
        seen.update(getattr(part, name) for part, name, _ in TF32)

    for module in step.network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(look)
            module.weight.register_hook(look)
    step(batch(0))
    assert seen == {off for _, _, off in TF32}
