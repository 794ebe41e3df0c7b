"""``medsegdiff info``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from medsegdiff.cli import complete, options
from medsegdiff.cli.console import out, result
from medsegdiff.config.load import load_preset
from medsegdiff.errors import ConfigError

if TYPE_CHECKING:
    from medsegdiff.config.spec import ResolvedConfig


def info(
    what: Annotated[
        str,
        typer.Argument(help="Name of a preset, a YAML file, or the folder of a run.", autocompletion=complete.presets),
    ],
    size: Annotated[
        int | None, typer.Option(min=8, help="Image side at which operations are counted.", show_default=False)
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Tell what a model is and what it costs.

    Example: `medsegdiff info v2-paper --json`
    """
    from medsegdiff.io.atomic import to_json

    facts = describe(what, size)
    if as_json:
        result(to_json(facts))
        return
    table = Table(show_header=False, title=what)
    for key, value in facts.items():
        if key != "config":
            shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
            table.add_row(key, escape(shown))
    out.print(table)


def describe(what: str, size: int | None) -> dict[str, Any]:
    """Collect the facts about a preset or a run."""
    from medsegdiff.models.budget import budget

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
    from medsegdiff.training.memory import split_memory, step_memory

    step = step_memory(config, precision="fp32")
    needs = {"weights": 4 * parameters, "training": step.fixed, "per_image": step.per_image}
    needs["batch"] = step.of(config.train.batch_size)
    if config.train.sharding:
        for number in (2, 4, 8, 16):
            needs[f"training_on_each_of_{number}"] = split_memory(step, config, number).fixed
    return {name: round(number / 1e9, 2) for name, number in needs.items()}


def _find(what: str) -> tuple[ResolvedConfig, dict[str, Any]]:
    from medsegdiff.config.spec import assumed

    if not Path(what).is_dir():
        if "/" in what and not what.endswith((".yaml", ".yml")):
            raise ConfigError(f"{what}: there is no such folder. Name the folder of a run, a preset or a YAML file.")
        return assumed(load_preset(what)), {}
    import json

    from medsegdiff.checkpoint import load_config

    run = Path(what) / "run.json"
    return load_config(Path(what)), json.loads(run.read_text(encoding="utf-8")) if run.is_file() else {}
