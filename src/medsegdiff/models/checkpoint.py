"""A network on disk: weights as safetensors and the configuration as JSON, in one folder, no pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from medsegdiff.config.load import make_config, split_told
from medsegdiff.config.spec import DataSpec, ResolvedConfig, resolved
from medsegdiff.errors import CheckpointError, ConfigError, MedSegDiffError
from medsegdiff.io.atomic import atomic_path, write_json
from medsegdiff.io.hashes import sha256_of
from medsegdiff.models.base import DiffusionModel, build_model
from medsegdiff.models.exported import ExportedNetwork, graphs_in, is_exported
from medsegdiff.models.packed import check_packed
from medsegdiff.models.quantization import dequantized
from medsegdiff.registry import require, used

FORMAT = 2
"""Version of the layout; a larger one in a file means that it is newer than this code. Format 1 had no ``spec``."""
CONFIG = "config.json"
BEST, LAST = "model.safetensors", "last.safetensors"
"""Averaged weights with the best validation Dice, and those of the last step saved."""
IN_WORDS = ("imported", "sha256")
"""Facts stored with weights that are no numbers."""
Weights = Literal["best", "last"]
STATE = "state.safetensors"
"""What training resumes from."""
FILES: Mapping[Weights, str] = {"best": BEST, "last": LAST}


@dataclass(frozen=True)
class Origin:
    """Where the weights of a network lay."""

    folder: str
    weights: Weights


def save_config(folder: Path, config: ResolvedConfig, *, data: str = "") -> None:
    """Write the configuration that weights in this folder belong to, and the plug-ins that it rests on."""
    told = config.model_dump(mode="json")
    spec = told.pop("spec")
    value = {"format": FORMAT, "medsegdiff": version("medsegdiff"), "config": told, "spec": spec}
    plugins = plugins_of(config, data)
    write_json(folder / CONFIG, value | ({"plugins": plugins} if plugins else {}))


def plugins_of(config: ResolvedConfig, data: str = "") -> list[dict[str, str]]:
    """Tell which plug-ins a run rests on; ``data`` may be the name of a built-in data set."""
    return used((data, config.model.name, config.spec.layout, config.sampling.sampler, config.sampling.fusion))


def load_config(folder: Path) -> ResolvedConfig:
    """Read the configuration of a run."""
    file = folder / CONFIG
    if not file.is_file():
        raise CheckpointError(
            f"{folder}: holds no config.json, so it is no run of medsegdiff. Train one, or check the path."
        )
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: can't be read ({error}).") from error
    try:
        return _read_config(value, folder)
    except ConfigError as error:
        raise CheckpointError(f"{file}: {error}") from error
    except MedSegDiffError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"{file}: expected what 'medsegdiff train' writes; found something else ({error})."
        ) from error


def _read_config(value: Any, folder: Path) -> ResolvedConfig:
    """Make a configuration of what its file holds."""
    file = folder / CONFIG
    if not isinstance(value, dict) or not isinstance(value.get("config"), dict):
        raise CheckpointError(f"{file}: has no section 'config'; it was not written by medsegdiff.")
    if value.get("format", 0) > FORMAT:
        raise CheckpointError(
            f"{file}: has format {value['format']}; this version reads up to {FORMAT}. Upgrade medsegdiff."
        )
    require(value.get("plugins", ()), where=folder)
    asked, spec = (value["config"], value["spec"]) if "spec" in value else split_told(value["config"])
    return resolved(make_config(asked), DataSpec.model_validate(spec))


def save_weights(file: Path, state: Mapping[str, Tensor], facts: Mapping[str, Any] | None = None) -> None:
    """Write weights; on any error the file that was there stays as it was."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    header = {key: str(value) for key, value in (facts or {}).items()}
    try:
        with atomic_path(file, durable=True) as part:
            save_file(tensors, part, metadata={"format": "pt", **header})
    except (OSError, SafetensorError) as error:
        reason = error.__cause__ or error
        way_out = "What was there before is unchanged; free some space and resume."
        if not file.with_name(STATE).exists():
            way_out = "Free some space, or choose another folder, and begin again."
        raise CheckpointError(f"{file}: can't be written ({reason}). {way_out}") from error


def facts_of(file: Path) -> dict[str, Any]:
    """Read the facts that are stored with weights: what training tells, and of imported ones the name of their file."""
    try:
        with safe_open(file, framework="pt") as stored:
            facts = stored.metadata() or {}
        facts.pop("format", None)
        return {key: value if key in IN_WORDS else json.loads(value) for key, value in facts.items()}
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{file}: can't be read ({error}). The file is damaged or not whole.") from error


def load_weights(file: Path, model: torch.nn.Module) -> None:
    """Read weights into a model."""
    if not file.is_file():
        raise CheckpointError(f"{file}: there are no weights. Train the run first, or resume it.")
    try:
        state = dequantized(load_file(file))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file}: can't be read ({error}). The file is damaged or not whole.") from error
    problems = _differences(model.state_dict(), state)
    if problems:
        raise CheckpointError(
            f"{file} belongs to another architecture: {len(problems)} weights differ, e.g. {'; '.join(problems[:3])}. "
            "Keep config.json and weights of one run together."
        )
    model.load_state_dict(state)


def snapshot_file(number: int) -> str:
    """Name the file of further weights of a run, counted from 1."""
    return f"snapshot-{number}.safetensors"


def load_snapshots(folder: str | Path, config: ResolvedConfig) -> list[DiffusionModel]:
    """Load the further weights that a run has kept, as many as were made by now."""
    found = []
    for file in _snapshots_in(Path(folder), config):
        found.append(build_model(config).eval())
        load_weights(file, found[-1])
    return found


def with_snapshots_kept(folder: str | Path, config: ResolvedConfig) -> ResolvedConfig:
    """Count the snapshots that a run has kept: fewer than it was asked for while it is not done, or if it was short."""
    kept = len(_snapshots_in(Path(folder), config))
    return config.model_copy(update={"train": config.train.model_copy(update={"snapshots": kept})})


def _snapshots_in(folder: Path, config: ResolvedConfig) -> list[Path]:
    files = (folder / snapshot_file(number) for number in range(1, config.train.snapshots + 1))
    return [file for file in files if file.is_file()]


def hashes_of(folder: Path, config: ResolvedConfig, *, weights: Weights) -> tuple[str, ...]:
    """Compute SHA-256 of the file of a run's weights, or of its graphs, and of those of its snapshots."""
    own = graphs_in(folder) if is_exported(folder) else (folder / FILES[weights],)
    return tuple(map(sha256_of, (*own, *_snapshots_in(folder, config))))


def hash_of(model: torch.nn.Module) -> str:
    """Compute SHA-256 of weights that lie in no file: of their names and bytes."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _differences(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    missing = [f"{name} is missing" for name in expected if name not in given]
    strange = [f"{name} is unknown" for name in given if name not in expected]
    shaped = [
        f"{name} is {tuple(given[name].shape)}, the model has {tuple(value.shape)}"
        for name, value in expected.items()
        if name in given and given[name].shape != value.shape
    ]
    return missing + strange + shaped


def load_model(folder: str | Path, *, weights: Weights = "best") -> tuple[DiffusionModel, ResolvedConfig]:
    """Load a trained network, or the graphs of an exported one."""
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder}: there is no such folder. Give the folder that 'medsegdiff train --out' wrote."
        )
    config = load_config(folder)
    check_packed(folder)
    if is_exported(folder):
        return _opened(folder, config, weights=weights), config
    model = build_model(config)
    load_weights(folder / FILES[weights], model)
    return model.eval(), config


def _opened(folder: Path, config: ResolvedConfig, *, weights: Weights) -> DiffusionModel:
    """Open the graphs of an exported run."""
    if weights != "best":
        raise CheckpointError(f"{folder}: is an exported run, which has one set of weights. Leave --weights out.")
    with torch.device("meta"):
        stride = build_model(config).stride
    return ExportedNetwork(folder, stride=stride).eval()
