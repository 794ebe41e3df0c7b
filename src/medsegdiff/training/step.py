"""One step of training, and the optimizer, schedule and average of weights that it moves."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable
from typing import cast

import torch
from accelerate import Accelerator
from jaxtyping import Float, Int
from torch import Tensor, nn

from medsegdiff.config.run import TrainConfig
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.hardware import full_float32
from medsegdiff.models.base import DiffusionModel, build_model
from medsegdiff.nn.blocks import recompute
from medsegdiff.seeding import derive_seed
from medsegdiff.training.adversary import adversary_of
from medsegdiff.training.distillation import Objective, objective_of
from medsegdiff.training.objective import Losses, anchor_losses
from medsegdiff.training.optimizer import SKIPPING, optimizer_for
from medsegdiff.training.state import NETWORKS, OPTIMIZER, whole
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
        self.finite = list[Tensor]()  # of the steps since they were counted, on the device
        self.average = copy.deepcopy(model)
        self.short = copy.deepcopy(model) if train.snapshots else None
        if train.sharding:
            optimizer = self._split(model)
        else:
            optimizer = optimizer_for(model, train)
            for average in self.averages:
                average.to(accelerator.device)
        split = train.sharding  # then it is on its device already, and takes no DDP around it
        self.model = accelerator.prepare_model(model, device_placement=not split, evaluation_mode=split)
        self.optimizer = accelerator.prepare(optimizer)
        self.adversary = adversary_of(config, model, accelerator.device)
        self.objective: Objective = self.adversary or objective_of(config, accelerator.device)
        self.model.train()

    def _split(self, model: DiffusionModel) -> torch.optim.Optimizer:
        """Split the networks over all processes, and what an optimizer will load."""
        from medsegdiff.training.sharding import shard, shard_loading  # here: it takes as long as half of PyTorch

        shard(model, self.accelerator)
        for average in self.averages:
            shard(average.requires_grad_(False), self.accelerator)
        optimizer = optimizer_for(model, self.config.train)
        shard_loading(optimizer)
        return optimizer

    @property
    def network(self) -> DiffusionModel:
        """The network itself, out of what spreads it over processes."""
        return cast(DiffusionModel, self.accelerator.unwrap_model(self.model))

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """What scales the loss, so that small gradients do not vanish in fp16; ``None`` in other precisions."""
        return cast(torch.amp.GradScaler | None, self.accelerator.scaler)

    @property
    def averages(self) -> list[DiffusionModel]:
        """The network with averaged weights, which samples, and that with the short average of snapshots, if any."""
        return [self.average] if self.short is None else [self.average, self.short]

    @property
    def networks(self) -> dict[str, nn.Module]:
        """All networks, as a checkpoint calls them."""
        named: dict[str, nn.Module] = dict(zip(NETWORKS, [self.network, *self.averages], strict=False))
        return named if self.adversary is None else named | {"discriminators": self.adversary.discriminators}

    @property
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Their optimizers, as a checkpoint calls them."""
        own = {OPTIMIZER: self.optimizer.optimizer}
        return own if self.adversary is None else own | {"discriminators_optimizer": self.adversary.optimizer}

    @property
    def learning_rate(self) -> float:
        """Of the next change of the weights."""
        return learning_rate(self.progress.step, self.config.train, num_steps=self.budget.total)

    def __call__(self, batch: Batch) -> Losses:
        """Learn from a batch on the device; what dropout leaves out of it follows from the place of its samples."""
        torch.manual_seed(derive_seed(self.config.train.seed, "dropout", batch.positions[0]))
        with full_float32(), self.accelerator.accumulate(self.model):
            losses = self._losses(batch)
            self.accelerator.backward(losses.total)
            self.progress.position += self.config.train.batch_size * self.accelerator.num_processes
            if self.accelerator.sync_gradients:
                self._update()
        return losses

    def _losses(self, batch: Batch) -> Losses:
        if self.budget.alone:
            return anchor_losses(self.model, batch, self.config.loss, labels=self.config.spec.labels)
        return self.objective(self.model, batch)

    def _update(self) -> None:
        """Step the optimizer and the averages, or none of them where the gradient is not finite.

        The device decides that by itself, so that nothing waits for it: fused optimizers leave out the step where
        they are told of an infinity, and averages move by nothing.
        """
        progress, longest = self.progress, self.config.train.max_grad_norm
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), math.inf if longest is None else longest)
        self.finite.append(whole(norm).detach().isfinite())
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        progress.step += 1
        if self.scaler is None:  # else it tells the optimizer, and lowers its scale
            self.optimizer.optimizer.found_inf = (~self.finite[-1]).float()
        if self.accelerator.device.type in SKIPPING or bool(self.finite[-1]):  # the others are waited for
            self.optimizer.step()
        for average, decay in zip(self.averages, (self.config.train.ema_decay, SHORT), strict=False):
            average_in(average, self.network, self._share(decay))
        self.optimizer.zero_grad()
        if self.adversary is not None:
            self.adversary.step(self.finite[-1])

    def count_skipped(self) -> None:
        """Ask the device which steps it skipped since the last time, and bring the progress up to date."""
        progress = self.progress
        for finite in torch.stack(self.finite).tolist() if self.finite else ():
            progress.skipped += not finite
            progress.skipped_in_row = 0 if finite else progress.skipped_in_row + 1
        self.finite.clear()

    def _share(self, decay: float) -> Float[Tensor, ""]:
        """Find out, on the device, how far an average moves now: not at all where the step was skipped."""
        since = torch.stack(self.finite)
        before = self.progress.step - len(since) - self.progress.skipped
        return share_of(before + since[:-1].sum(), decay=decay) * since[-1]


SHORT = 0.99
"""Decay of the average that snapshots are taken of."""
HELD, HELD_RATE = (0.5, 0.85), 0.25
"""Part of training, and of the learning rate, at which it is held while snapshots are taken; then it falls as ever."""


def learning_rate(step: int, config: TrainConfig, *, num_steps: int | None = None) -> float:
    """Compute the learning rate of a step of so many; ``None`` goes by ``max_steps``."""
    warm = min(1.0, (step + 1) / (config.warmup_steps + 1))
    if config.lr_schedule == "constant":
        return config.learning_rate * warm
    done = min(step / (num_steps or config.max_steps), 1.0)
    if config.lr_schedule == "poly":
        return config.learning_rate * warm * (1 - done) ** 0.9  # Isensee et al. (2021), methods
    if config.lr_schedule == "waves":  # BAT: cosine annealing with T_max of 20 epochs, which goes on for 200
        return config.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * 10 * done))
    if config.lr_schedule == "drop":  # BEAL: × 0.2 from epoch 100 of 200
        return config.learning_rate * warm * (1.0 if done < 0.5 else 0.2)
    if not config.snapshots:
        return config.learning_rate * warm * _falling(done, 1.0, 0.01)
    begin, end = HELD
    fallen = _falling(min(done / begin, 1.0), 1.0, HELD_RATE)
    return config.learning_rate * warm * (fallen if done < end else _falling((done - end) / (1 - end), HELD_RATE, 0.01))


def _falling(done: float, start: float, end: float) -> float:
    """Fall along half a cosine."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * done))


def snapshot_steps(number: int, total: int) -> dict[int, int]:
    """List the steps after which a snapshot is taken, evenly while the rate is held: step → its number, from 1.

    There are no more of them than steps in which it is held.
    """
    begin, end = (round(part * total) for part in HELD)
    number = min(number, end - begin)
    return {begin + round((end - begin) * taken / number): taken for taken in range(1, number + 1)}


def share_of(before: Int[Tensor, ""], *, decay: float) -> Float[Tensor, ""]:
    """Find out how far an average of so many weights moves towards the current ones.

    Early on it is shorter, so that it follows: it keeps (1 + n) / (10 + n), at most the decay. The first weights are
    taken as they are.
    """
    return torch.where(before == 0, 1.0, (9 / (10 + before)).clamp(min=1 - decay))


@torch.no_grad()
def average_in(average: nn.Module, network: nn.Module, share: Float[Tensor, ""]) -> None:
    """Move averaged weights a share of the way to the current ones; running statistics are taken over."""
    averaged: list[Tensor] = list(average.parameters())
    current: list[Tensor] = list(network.parameters())
    way = torch._foreach_sub(current, averaged)
    torch._foreach_mul_(way, share)
    torch._foreach_add_(averaged, way)
    for kept, buffer in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(buffer)


class RunningMeans:
    """Averages numbers on the device, so that nothing waits for them until they are wanted."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts = Counter[str]()

    def add(self, **numbers: Tensor) -> None:
        """Take in the numbers of a batch, whichever it has."""
        self.counts.update(numbers.keys())
        for name, value in numbers.items():
            self.sums[name] = self.sums[name] + value.detach() if name in self.sums else value.detach()

    def take(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Give the means since the last time, and start anew."""
        names = list(self.sums)
        means = reduce(torch.stack([self.sums[name] / self.counts[name] for name in names]).float()).tolist()
        self.sums, self.counts = {}, Counter()
        return dict(zip(names, means, strict=True))
