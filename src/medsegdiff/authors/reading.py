"""Reading a checkpoint of the authors' code: a pickle, of which nothing but tensors is taken."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medsegdiff.errors import CheckpointError

NESTED = ("state_dict", "model_state_dict", "model", "ema")
"""Where others put weights inside a file."""


def read_state(file: Path) -> dict[str, Tensor]:
    """Read weights by name, without running any code that the file may hold."""
    if not file.is_file():
        raise CheckpointError(f"{file}: there is no such file. Give a file that the authors' code saved.")
    state = _weights(_loaded(file))
    if not state:
        raise CheckpointError(
            f"{file}: holds no weights by name. Give a file that the authors' segmentation_train.py saved "
            "(savedmodel….pt or emasavedmodel….pt)."
        )
    return {name.removeprefix("module."): _single(value) for name, value in state.items()}


def _loaded(file: Path) -> Any:
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # of pickles that it then refuses
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"{file}: refused. It is no file of plain weights, and reading anything else could run code that it holds "
            f"({reason}). Save the weights alone: torch.save(model.state_dict(), …)."
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file}: can't be read ({error}). The file is damaged or no checkpoint.") from error


def _weights(loaded: Any) -> dict[str, Tensor]:
    """Find the weights, in the file itself or one step inside."""
    if not isinstance(loaded, Mapping):
        return {}
    inside = next((loaded[key] for key in NESTED if isinstance(loaded.get(key), Mapping)), loaded)
    return {str(name): value for name, value in inside.items() if isinstance(value, Tensor)}


def _single(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value
