"""What there is, what it is and what it costs: presets, runs, and all that is registered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medsegdiff.config.load import load_preset, make_config
from medsegdiff.config.spec import ResolvedConfig, assumed
from medsegdiff.data.dataset import DATASETS
from medsegdiff.diffusion.samplers import SAMPLERS
from medsegdiff.errors import ConfigError
from medsegdiff.fusion.fusers import FUSERS
from medsegdiff.metrics.base import METRICS
from medsegdiff.models.base import MODELS
from medsegdiff.models.budget import budget
from medsegdiff.models.checkpoint import load_config
from medsegdiff.training.memory import split_memory, step_memory

REGISTRIES = {"datasets": DATASETS, "samplers": SAMPLERS, "fusers": FUSERS, "metrics": METRICS}


def registered(kind: str) -> list[dict[str, Any]]:
    """List what is registered of a kind, with its facts; models with what they cost too."""
    if kind == "models":
        return [{**entry.described(), **_cost(entry.name)} for entry in MODELS]
    return [entry.described() for entry in REGISTRIES[kind]]  # type: ignore[attr-defined]


def _cost(name: str) -> dict[str, Any]:
    """Count what a model costs with its own defaults, which are the published settings."""
    costs = budget(assumed(make_config({"model": {"name": name}})))
    gmac = {"condition": round(costs.condition_gmac, 3), "denoiser": round(costs.denoiser_gmac, 3)}
    return {"parameters": costs.parameters, "gmac": gmac}


def describe(what: str, *, size: int | None = None) -> dict[str, Any]:
    """Collect the facts about a preset, a file or a run; ``size`` is the side of images, in pixels."""
    config, facts = _find(what)
    if size is not None:
        config = config.model_copy(update={"data": config.data.model_copy(update={"image_size": size})})
    costs = budget(config)
    sampling = config.sampling
    ensemble = costs.condition_gmac + sampling.members * sampling.steps * costs.denoiser_gmac
    return {
        "description": config.description,
        "reproduces": config.reproduces,
        "model": config.model.name,
        "parameters": costs.parameters,
        "parameters_by_part": costs.parts,
        "image_size": config.data.image_size,
        "gmac": {
            "condition": round(costs.condition_gmac, 3),
            "denoiser": round(costs.denoiser_gmac, 3),
            "forward": round(costs.condition_gmac + costs.denoiser_gmac, 3),
            "ensemble": round(ensemble, 1),
        },
        "memory_gb": _memory(config, costs.parameters),
        "sampling": sampling.model_dump(mode="json"),
        **facts,
        "config": config.model_dump(mode="json"),
    }


def _memory(config: ResolvedConfig, parameters: int) -> dict[str, float]:
    """Estimate memory in GB: of the weights, and of a training step in fp32, on one device or on each of several."""
    step = step_memory(config, precision="fp32")
    needs = {"weights": 4 * parameters, "training": step.fixed, "per_image": step.per_image}
    needs["batch"] = step.of(config.train.batch_size)
    if config.train.sharding:
        for number in (2, 4, 8, 16):
            needs[f"training_on_each_of_{number}"] = split_memory(step, config, number).fixed
    return {name: round(number / 1e9, 2) for name, number in needs.items()}


def _find(what: str) -> tuple[ResolvedConfig, dict[str, Any]]:
    if not Path(what).is_dir():
        if "/" in what and not what.endswith((".yaml", ".yml")):
            raise ConfigError(f"{what}: there is no such folder. Name the folder of a run, a preset or a YAML file.")
        return assumed(load_preset(what)), {}
    run = Path(what) / "run.json"
    return load_config(Path(what)), json.loads(run.read_text(encoding="utf-8")) if run.is_file() else {}
