"""Files of weights that others have made: read by name, without running any code that a file may hold."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Num
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from medsegdiff.errors import CheckpointError

NESTED = ("state_dict", "model_state_dict", "model", "ema")
"""Where others put weights inside a file."""


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read weights by name, in single precision: what PyTorch saved, safetensors, or arrays of Flax (``.npz``)."""
    if not file.is_file():
        raise CheckpointError(f"{file}: there is no such file. Give a file of weights on this machine.")
    reader = {".safetensors": _safetensors, ".npz": _flax}.get(file.suffix.lower(), _torch)
    state = {name.removeprefix("module."): _single(value) for name, value in reader(file).items()}
    if not state:
        raise CheckpointError(
            f"{file}: holds no weights by name. Give a file of them: torch.save(model.state_dict(), …)."
        )
    return state


def _torch(file: Path) -> dict[str, Tensor]:
    """Find the weights, in what PyTorch saved itself or one step inside."""
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # of pickles that it then refuses
            loaded: Any = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"{file}: refused. It is no file of plain weights, and reading anything else could run code that it holds "
            f"({reason}). Save the weights alone: torch.save(model.state_dict(), …)."
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise _damaged(file, error) from error
    if not isinstance(loaded, Mapping):
        return {}
    inside = next((loaded[key] for key in NESTED if isinstance(loaded.get(key), Mapping)), loaded)
    return {str(name): value for name, value in inside.items() if isinstance(value, Tensor)}


def _safetensors(file: Path) -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = load_file(file)
    except (OSError, SafetensorError) as error:
        raise _damaged(file, error) from error
    return state


def _flax(file: Path) -> dict[str, Tensor]:
    """Read arrays as Flax names and lays them out; an array of objects is a pickle, and is refused."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            return dict(_from_flax(name, stored[name]) for name in stored.files)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise _damaged(file, error) from error


def _from_flax(name: str, array: Num[np.ndarray, "..."]) -> tuple[str, Tensor]:
    """Give an array the name and layout that PyTorch has for it: kernels from HWIO to OIHW, matrices turned around."""
    layer, _, last = name.rpartition("/")
    if last == "kernel" and array.ndim == 4:
        array = array.transpose(3, 2, 0, 1)
    elif last == "kernel":  # of heads: (heads, width, out) for the projection out, else (in, heads, width)
        inner = -1 if layer.endswith("/out") else array.shape[0]
        array = array.reshape(inner, array.shape[-1] if inner == -1 else -1).T
    elif last in ("scale", "bias"):
        array = array.reshape(-1)
    name = re.sub(r"/(?:kernel|scale)$", "/weight", name).replace("/", ".")
    return name, torch.from_numpy(np.ascontiguousarray(array))


def _damaged(file: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{file}: can't be read ({error}). The file is damaged or no file of weights.")


def _single(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value
