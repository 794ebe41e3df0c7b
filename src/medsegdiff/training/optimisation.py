"""What changes from step to step: the learning rate and the averaged weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from medsegdiff.config.train import TrainConfig

Tensors = tuple[Tensor, ...] | list[Tensor]
Update = Callable[[Tensors, Tensors, Tensor | int], None]
"""(average, current weights, PyTorch's count of updates) → nothing; changes the average."""


def learning_rate(step: int, config: TrainConfig, *, num_steps: int | None = None) -> float:
    """Compute the learning rate of a step of so many; ``None`` goes by ``max_steps``."""
    warm = min(1.0, (step + 1) / (config.warmup_steps + 1))
    if config.lr_schedule == "constant":
        return config.learning_rate * warm
    done = min(step / (num_steps or config.max_steps), 1.0)
    return config.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def moving_average(decay: float, count: Callable[[], int]) -> Update:
    """Make the update of the averaged weights; early on the average is shorter, so that it follows."""

    @torch.no_grad()
    def update(average: Tensors, current: Tensors, _: Tensor | int) -> None:
        keep = min(decay, (1 + count()) / (10 + count()))
        torch._foreach_lerp_(average, current, 1 - keep)

    return update


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
