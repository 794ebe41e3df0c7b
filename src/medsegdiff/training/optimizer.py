"""Optimizers, and steps that the device leaves out where a gradient is not finite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from medsegdiff.config.run import TrainConfig

SKIPPING = {"cpu", "cuda"}
"""Devices whose fused optimizers are known to leave out a step that they are told to."""

MOMENTS: Mapping[str, int] = {"adamw": 2, "adam": 2, "amsgrad": 3, "sgd": 1}
"""Numbers that each optimizer keeps of each weight."""


def optimizer_for(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Make the optimizer that was asked for."""
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "sgd":
        sgd = torch.optim.SGD(
            model.parameters(),
            lr=rate,
            momentum=config.momentum,
            nesterov=config.nesterov,
            weight_decay=decay,
            fused=True,
        )
        for parameter in model.parameters():  # else a first step that is skipped leaves there what was in memory
            sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return sgd
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameter_groups(model, decay), lr=rate, betas=config.betas, fused=True)
    amsgrad = config.optimizer == "amsgrad"
    return torch.optim.Adam(
        model.parameters(), lr=rate, betas=config.betas, weight_decay=decay, amsgrad=amsgrad, fused=True
    )


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Sort parameters: matrices and kernels decay; biases, norms and the widths of U-SA's Gaussians do not."""
    decays = [p for p in model.parameters() if p.ndim >= 2]
    stays = [p for p in model.parameters() if p.ndim < 2]
    return [{"params": decays, "weight_decay": weight_decay}, {"params": stays, "weight_decay": 0.0}]


def step_if(finite: Bool[Tensor, ""], optimizer: torch.optim.Optimizer) -> None:
    """Step a fused optimizer, or not: the device decides by itself where it can."""
    optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
    if finite.device.type in SKIPPING or bool(finite):  # the others are waited for
        optimizer.step()
