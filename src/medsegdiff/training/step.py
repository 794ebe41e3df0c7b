"""One step of training, and the optimizer, schedule and average of weights that it moves."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from medsegdiff.config.run import TrainConfig
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.hardware import full_float32
from medsegdiff.models.base import DiffusionModel, build_model
from medsegdiff.nn.blocks import recompute
from medsegdiff.seeding import derive_seed
from medsegdiff.training.distillation import objective_of
from medsegdiff.training.objective import Losses
from medsegdiff.training.state import shard, shard_loading, whole
from medsegdiff.training.step_budget import StepBudget
from medsegdiff.types import Batch


class TrainingStep:
    """A network, its average, its optimizer and its objective; called with a batch, it learns from it.

    The weights move with every ``train.accumulate``-th batch. How far it has come is told by ``progress``.
    """

    def __init__(self, config: ResolvedConfig, accelerator: Accelerator, budget: StepBudget | None = None) -> None:
        self.config, self.accelerator, train = config, accelerator, config.train
        self.budget = StepBudget(train) if budget is None else budget
        self.progress = self.budget.progress
        torch.manual_seed(train.seed)
        model = build_model(config)
        if train.gradient_checkpointing:
            recompute(model)
        self.ema = AveragedModel(model, multi_avg_fn=moving_average(train.ema_decay, self._averaged))
        self.short = (
            AveragedModel(model, multi_avg_fn=moving_average(SHORT, self._averaged)) if train.snapshots else None
        )
        if train.sharding:
            shard(model, accelerator)
        for average in self.averages:
            if train.sharding:
                shard(average.requires_grad_(False), accelerator)
            else:
                average.to(accelerator.device)
        optimizer = optimizer_for(model, train)
        shard_loading(optimizer)
        split = train.sharding  # then it is on its device already, and takes no DDP around it
        self.model = accelerator.prepare_model(model, device_placement=not split, evaluation_mode=split)
        self.optimizer = accelerator.prepare(optimizer)
        self.objective = objective_of(config, accelerator.device)
        self.model.train()

    @property
    def network(self) -> DiffusionModel:
        """The network itself, out of what spreads it over processes."""
        return cast(DiffusionModel, self.accelerator.unwrap_model(self.model))

    @property
    def average(self) -> DiffusionModel:
        """The network with averaged weights, which is what samples."""
        return cast(DiffusionModel, self.ema.module)

    @property
    def averages(self) -> list[DiffusionModel]:
        """That network, and the one with the short average that snapshots are taken of, if there is one."""
        return [cast(DiffusionModel, of.module) for of in (self.ema, self.short) if of is not None]

    @property
    def learning_rate(self) -> float:
        """Of the next change of the weights."""
        return learning_rate(self.progress.step, self.config.train, num_steps=self.budget.total)

    def __call__(self, batch: Batch) -> Losses:
        """Learn from a batch on the device; what dropout leaves out of it follows from the place of its samples."""
        torch.manual_seed(derive_seed(self.config.train.seed, "dropout", batch.positions[0]))
        with full_float32(), self.accelerator.accumulate(self.model):
            losses = self.objective(self.model, batch)
            self.accelerator.backward(losses.total)
            self.progress.position += self.config.train.batch_size * self.accelerator.num_processes
            if self.accelerator.sync_gradients:
                self._update()
        return losses

    def _update(self) -> None:
        """Step the optimizer and the average; skip the step if the gradient is not finite."""
        progress, longest = self.progress, self.config.train.max_grad_norm
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), math.inf if longest is None else longest)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        progress.step += 1
        if math.isfinite(float(whole(norm))):
            self.optimizer.step()
            self.ema.update_parameters(self.network)
            if self.short is not None:
                self.short.update_parameters(self.network)
            progress.skipped_in_row = 0
        else:
            progress.skipped += 1
            progress.skipped_in_row += 1
        self.optimizer.zero_grad()

    def _averaged(self) -> int:
        """Count how often weights were averaged before; known without asking the device."""
        return self.progress.step - self.progress.skipped - 1


SHORT = 0.99
"""Decay of the average that snapshots are taken of."""
HELD, HELD_RATE = (0.5, 0.85), 0.25
"""Part of training, and of the learning rate, at which it is held while snapshots are taken; then it falls as ever."""

Tensors = tuple[Tensor, ...] | list[Tensor]
Update = Callable[[Tensors, Tensors, Tensor | int], None]
"""(average, current weights, PyTorch's count of updates) → nothing; changes the average."""


def learning_rate(step: int, config: TrainConfig, *, num_steps: int | None = None) -> float:
    """Compute the learning rate of a step of so many; ``None`` goes by ``max_steps``."""
    warm = min(1.0, (step + 1) / (config.warmup_steps + 1))
    if config.lr_schedule == "constant":
        return config.learning_rate * warm
    done = min(step / (num_steps or config.max_steps), 1.0)
    if config.lr_schedule == "poly":
        return config.learning_rate * warm * (1 - done) ** 0.9  # Isensee et al. (2021), methods
    if not config.snapshots:
        return config.learning_rate * warm * _falling(done, 1.0, 0.01)
    begin, end = HELD
    fallen = _falling(min(done / begin, 1.0), 1.0, HELD_RATE)
    return config.learning_rate * warm * (fallen if done < end else _falling((done - end) / (1 - end), HELD_RATE, 0.01))


def _falling(done: float, start: float, end: float) -> float:
    """Fall along half a cosine."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * done))


def snapshot_steps(number: int, total: int) -> dict[int, int]:
    """List the steps after which a snapshot is taken, evenly while the rate is held: step → its number, from 1."""
    begin, end = (round(part * total) for part in HELD)
    return {begin + round((end - begin) * taken / number): taken for taken in range(1, number + 1)}


def moving_average(decay: float, count: Callable[[], int]) -> Update:
    """Make the update of the averaged weights; early on the average is shorter, so that it follows."""

    @torch.no_grad()
    def update(average: Tensors, current: Tensors, _: Tensor | int) -> None:
        keep = min(decay, (1 + count()) / (10 + count()))
        torch._foreach_lerp_(average, current, 1 - keep)

    return update


MOMENTUM = 0.99
"""Of SGD: Isensee et al. (2021), methods."""


def optimizer_for(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Make the optimizer that was asked for."""
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            model.parameters(), lr=rate, momentum=MOMENTUM, nesterov=True, weight_decay=decay, fused=True
        )
    return torch.optim.AdamW(parameter_groups(model, decay), lr=rate, fused=True)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Sort parameters: matrices and kernels decay; biases, norms and the widths of U-SA's Gaussians do not."""
    decays = [p for p in model.parameters() if p.ndim >= 2]
    stays = [p for p in model.parameters() if p.ndim < 2]
    return [{"params": decays, "weight_decay": weight_decay}, {"params": stays, "weight_decay": 0.0}]


class RunningMeans:
    """Averages numbers on the device, so that nothing waits for them until they are wanted."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, **numbers: Tensor) -> None:
        """Take in the numbers of a batch."""
        self.count += 1
        for name, value in numbers.items():
            self.sums[name] = self.sums[name] + value.detach() if name in self.sums else value.detach()

    def take(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Give the means since the last time, and start anew."""
        names = list(self.sums)
        means = reduce(torch.stack([self.sums[name] for name in names]).float() / self.count).tolist()
        self.sums, self.count = {}, 0
        return dict(zip(names, means, strict=True))
