"""A network that is split over processes, each of which keeps a share of every parameter."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import distribute_tensor

from medsegdiff.models.base import SAMPLED, DiffusionModel
from medsegdiff.training.state import is_split


def shard(model: DiffusionModel, accelerator: Accelerator) -> None:
    """Split the parameters of a network over all processes, in place, and move them to the device.

    A block is put together from all shares when it computes, forward and backward, and let go after it. What
    is made from the parameters is split like them: gradients, moments of the optimizer, averages. Weights that are
    loaded later, whole, are cut to this process's share.

    Deviation from how the rest is set up: torch's own ``fully_shard``, not accelerate's plugin for it. The plugin
    (1.15) has no effect on CPUs, where these lines are tested: a network is then replicated (DDP) without a word. It
    also takes one network only, and here are two: that which is trained, and the average, which samples.

    Source: Zhao et al. (2023), PyTorch FSDP, section 3; Rajbhandari et al. (2020), ZeRO, section 5.3.
    """
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for unit in [module for module in model.modules() if isinstance(module, model.units)]:
        fully_shard(unit, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for method in SAMPLED:  # beside these, training calls the network as a whole
        register_fsdp_forward_method(model, method)
    model.register_load_state_dict_pre_hook(_cut_weights)  # type: ignore[no-untyped-call]


def shard_loading(optimizer: torch.optim.Optimizer) -> None:
    """Let an optimizer take the whole tensors of a checkpoint and keep this process's share."""
    optimizer.register_load_state_dict_pre_hook(_cut_moments)


def _cut_like(value: Any, like: Any) -> Any:
    """Keep this process's share of a whole tensor, if the tensor it is for is split."""
    if not is_split(like) or is_split(value) or value.shape != like.shape:
        return value
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)


def _cut_weights(module: nn.Module, state: dict[str, Any], *_: Any) -> None:
    """Cut the weights that a network is about to load."""
    for name, expected in module.state_dict().items():
        if name in state:
            state[name] = _cut_like(state[name], expected)


def _cut_moments(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Cut the moments that an optimizer is about to load."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, part in state["state"].items():
        part.update({key: _cut_like(value, parameters[index]) for key, value in part.items()})
