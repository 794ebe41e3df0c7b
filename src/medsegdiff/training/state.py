"""The state of a training run on disk: what it takes to go on exactly where it stopped, in one file, no pickle."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from medsegdiff.errors import CheckpointError
from medsegdiff.models.checkpoint import save_weights

STATE = "state.safetensors"


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
    """Best validation Dice of the fused masks."""
    best_step: int = 0
    worse_validations: int = 0
    """Validations in a row without a better Dice."""
    skipped: int = 0
    """Steps skipped for a loss or gradient that was not finite."""
    skipped_in_row: int = 0
    settled: int = 0
    """Steps that fit into ``train.max_minutes``; 0 while that is not known."""
    settled_for: float | None = None
    """Minutes for which that was settled."""

    def restore(self, saved: Progress) -> None:
        """Go on from there; whoever holds this progress sees it."""
        vars(self).update(vars(saved))


def tensors_of(
    *, model: torch.nn.Module, average: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Collect all tensors that training goes on with."""
    return {
        **{f"model.{name}": value for name, value in model.state_dict().items()},
        **{f"average.{name}": value for name, value in average.state_dict().items()},
        **{f"optimizer.{name}": value for name, value in _flat(optimizer).items()},
    }


def save_state(file: Path, tensors: Mapping[str, Tensor], *, num_averaged: int, progress: Progress) -> None:
    """Save everything in one file, which replaces the previous one when it is whole."""
    save_weights(file, tensors, {"progress": json.dumps(dataclasses.asdict(progress)), "averaged": num_averaged})


def load_state(
    file: Path, *, model: torch.nn.Module, average: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[Progress, int]:
    """Restore what `save_state` saved.

    Tensors are mapped from the file, not read: a process of several that keeps a share of each takes no more memory.
    """
    try:
        with safe_open(file, framework="pt") as stored:
            facts = stored.metadata()
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  (no mapping)
        model.load_state_dict(part_of(tensors, "model."))
        average.load_state_dict(part_of(tensors, "average."))
        _fill(optimizer, part_of(tensors, "optimizer."))
        return Progress(**json.loads(facts["progress"])), int(facts["averaged"])
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
