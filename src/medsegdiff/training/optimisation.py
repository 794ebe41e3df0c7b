"""What changes from step to step: the learning rate and the averaged weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from medsegdiff.config import TrainConfig

Tensors = tuple[Tensor, ...] | list[Tensor]
Update = Callable[[Tensors, Tensors, Tensor | int], None]
"""(average, current weights, how often they were averaged) → nothing; changes the average."""


def learning_rate(step: int, config: TrainConfig) -> float:
    """Compute the learning rate of a step.

    Args:
        step: Steps done.
        config: Peak, warm-up, shape and length.

    Returns:
        The rate.
    """
    warm = min(1.0, (step + 1) / (config.warmup_steps + 1))
    if config.lr_schedule == "constant":
        return config.learning_rate * warm
    done = min(step / config.max_steps, 1.0)
    return config.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def moving_average(decay: float) -> Update:
    """Make the update of the averaged weights; early on the average is shorter, so that it follows.

    Args:
        decay: Share of the average that is kept at each step, in the long run.

    Returns:
        A function for `AveragedModel`.
    """

    @torch.no_grad()
    def update(average: Tensors, current: Tensors, count: Tensor | int) -> None:
        keep = min(decay, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(average, current, 1 - keep)

    return update
