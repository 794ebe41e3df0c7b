"""What training resumes from, whole in one file, wherever the network is split over processes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from medsegdiff.errors import CheckpointError, ConfigError
from medsegdiff.io.atomic import write_json
from medsegdiff.models.base import DiffusionModel
from medsegdiff.models.checkpoint import save_weights

PROGRESS = "progress.json"
"""Progress since the tensors were saved: a validation changes none of them."""


@dataclass
class Progress:
    """How far training has come. All randomness follows from the position: there is no more to remember of it."""

    step: int = 0
    """Optimizer steps done, skipped ones included."""
    position: int = 0
    """Samples seen, over all processes: where the stream of training samples goes on."""
    validated: int = 0
    """Step of the last validation."""
    best_dice: float = -1.0
    """Validation Dice of the fused masks of the weights that are kept to segment with."""
    best_step: int = 0
    top_dice: float = -1.0
    """Best validation Dice so far."""
    top_by_case: list[float] = field(default_factory=list)
    """Dice by case at that validation."""
    worse_validations: int = 0
    """Validations in a row without a better Dice."""
    skipped: int = 0
    """Steps skipped for a loss or gradient that was not finite."""
    skipped_in_row: int = 0
    settled: int = 0
    """Steps that fit into ``train.max_minutes``; 0 while that is not known."""
    settled_for: float | None = None
    """Minutes for which that was settled."""
    loss_scale: dict[str, float] = field(default_factory=dict)
    """State of the scaling of the loss in fp16; nothing in other precisions."""

    def restore(self, saved: Progress) -> None:
        """Go on from there; whoever holds this progress sees it."""
        vars(self).update(vars(saved))


NETWORKS = ("model", "average", "short")
"""What a network is called in the file: as it is trained, its average, and the short one of snapshots, if there is."""


OPTIMIZER = "optimizer"
"""The same of the network's optimizer."""


def tensors_of(
    *, networks: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]
) -> dict[str, Tensor]:
    """Collect all tensors that training goes on with, each called after what it is part of."""
    parts: dict[str, Mapping[str, Tensor]] = {called: network.state_dict() for called, network in networks.items()}
    parts |= {called: _flat(optimizer) for called, optimizer in optimizers.items()}
    return {f"{called}.{name}": value for called, part in parts.items() for name, value in part.items()}


def save_state(file: Path, tensors: Mapping[str, Tensor], *, progress: Progress) -> None:
    """Save everything in one file, which replaces the previous one when it is whole."""
    averaged = progress.step - progress.skipped  # earlier versions ask for it
    save_weights(file, tensors, {"progress": json.dumps(dataclasses.asdict(progress)), "averaged": averaged})


def save_progress(file: Path, progress: Progress) -> None:
    """Save what a validation has changed since everything was saved."""
    write_json(file.with_name(PROGRESS), dataclasses.asdict(progress))


def load_state(
    file: Path, *, networks: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]
) -> Progress:
    """Restore what `save_state` saved, and what `save_progress` saved after it.

    Tensors are mapped from the file, not read: a process of several that keeps a share of each takes no more memory.
    """
    try:
        with safe_open(file, framework="pt") as stored:
            facts = stored.metadata()
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  (no mapping)
        for called, network in networks.items():
            network.load_state_dict(part_of(tensors, f"{called}."))
        for called, optimizer in optimizers.items():
            _fill(optimizer, part_of(tensors, f"{called}."))
        progress = Progress(**json.loads(facts["progress"]))
        validated = file.with_name(PROGRESS)
        if validated.is_file():
            later = Progress(**json.loads(validated.read_text(encoding="utf-8")))
            progress = later if later.step == progress.step else progress
        return progress
    except (OSError, SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{file}: the checkpoint can't be read ({error}). Start a new run in another --out."
        ) from error


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Pick from what `tensors_of` gives."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _flat(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Name each tensor of the optimizer's state by its parameter's number."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{key}": torch.as_tensor(value) for index, part in state.items() for key, value in part.items()}


def _fill(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def check_divisible(model: DiffusionModel, processes: int) -> None:
    """Find out, before anything is read or written, whether a network can be split."""
    if processes == 1:
        raise ConfigError(
            "train.sharding splits a network over several processes, and this is the only one. Start more, e.g. "
            "'accelerate launch --num_processes 4 -m medsegdiff train …' or 'torchrun --nproc-per-node 4 -m medsegdiff "
            "train …', or set train.sharding=false."
        )
    if not any(isinstance(module, model.units) for module in model.modules()):
        names = " or ".join(unit.__name__ for unit in model.units) or "none named"
        raise ConfigError(
            f"train.sharding needs a network made of blocks, to have one at a time whole; {type(model).__name__} has "
            f"no block that it calls its unit ({names}). Set train.sharding=false, or name its blocks in 'units'."
        )


def reshard(model: nn.Module) -> None:
    """Let go of what lies outside the blocks, which sampling keeps whole until it is told that it is over."""
    let_go: Callable[[], None] | None = getattr(model, "reshard", None)
    if let_go is not None:  # the network was split
        let_go()


def is_split(value: Any) -> bool:
    """Tell whether this process has only its share of a tensor."""
    return hasattr(value, "full_tensor")  # it is a DTensor, whose import takes as long as that of half of PyTorch


def gather(tensors: Mapping[str, Any], *, keep: bool) -> dict[str, Tensor]:
    """Put split tensors together, one after the other; all processes have to take part."""
    whole: dict[str, Tensor] = {}
    for name, value in tensors.items():
        together = value.full_tensor().detach().cpu() if is_split(value) else value
        if keep:
            whole[name] = together
    return whole


def whole(value: Any) -> Any:
    """Put one tensor together, if it is split; all processes have to take part."""
    return value.full_tensor() if is_split(value) else value
