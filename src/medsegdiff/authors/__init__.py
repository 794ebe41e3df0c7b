"""Taking over checkpoints of official code: MedSegDiff's version 1 and "new", and the systems it is compared with."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medsegdiff.authors.architecture import Architecture, infer
from medsegdiff.authors.names import check_whole, translate
from medsegdiff.authors.rivals import RIVALS, architecture_of, rival_of, translated
from medsegdiff.config.data import Values
from medsegdiff.config.load import load_preset, make_config
from medsegdiff.config.networks.guided import GuidedConfig
from medsegdiff.config.spec import ResolvedConfig, assumed
from medsegdiff.errors import ConfigError
from medsegdiff.io.atomic import write_json
from medsegdiff.models.base import build_model
from medsegdiff.models.checkpoint import BEST, LAST, save_config, save_weights
from medsegdiff.models.foreign import read_weights
from medsegdiff.training.run import Run
from medsegdiff.types import Task

log = logging.getLogger(__name__)

PRESETS = {"medsegdiff-v1": "v1", "release": "release"}
"""With the settings of the authors' README, by network; presets of other systems are called as their networks."""


@dataclass(frozen=True)
class Imported:
    """What was taken over."""

    folder: Path
    network: str
    parameters: int
    config: ResolvedConfig
    made_anew: tuple[str, ...]
    """Weights that their file lacks, which have random values."""


def import_checkpoint(
    file: Path,
    out: Path,
    *,
    heads: int = 1,
    image_size: int | None = None,
    classes: tuple[str, ...] | None = None,
    values: Values | None = None,
) -> Imported:
    """Make a run of a checkpoint of official code, which segments, and from which training can start.

    The architecture is found from the weights. No shape tells what else belongs to them: the defaults are what
    the official code does.
    """
    run = Run(out)
    run.check_new()
    found, weights = understood(read_weights(file), heads=heads)
    config = describe(found, image_size=image_size, classes=classes, values=values)
    whole, made_anew = complete(weights, config)
    _warn(file, found, made_anew, values)
    out.mkdir(parents=True, exist_ok=True)
    facts = {"imported": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    for name in (BEST, LAST):
        save_weights(out / name, whole, facts)
    write_json(run.record, facts | {"made_anew": made_anew})
    save_config(out, config)
    return Imported(out, found.network.name, sum(v.numel() for v in whole.values()), config, tuple(made_anew))


def understood(state: Mapping[str, Tensor], *, heads: int = 1) -> tuple[Architecture, dict[str, Tensor]]:
    """Find out which network weights belong to, and give them our names."""
    rival = rival_of(state)
    if rival is not None:
        return architecture_of(rival, state), translated(rival, state)
    found = infer(state, heads=heads)
    assert isinstance(found.network, GuidedConfig)
    return found, translate(state, found.network)


def _warn(file: Path, found: Architecture, made_anew: list[str], values: Values | None) -> None:
    """Say where the run can't do as the official code did."""
    rival = RIVALS.get(found.network.name)
    if made_anew:
        log.warning(
            "%s: their version 1 makes the convolution from the condition's bottleneck anew, with random weights, at "
            "each call, so no checkpoint holds it. Here it has fixed random weights: fine-tune before you trust masks.",
            file,
        )
    if rival is not None and rival.entered and values is None:
        log.warning(
            "%s: in the official code images entered %s, here from 0 to 1: fine-tune before you trust masks.",
            file,
            rival.entered,
        )


def describe(
    found: Architecture, *, image_size: int | None, classes: tuple[str, ...] | None, values: Values | None
) -> ResolvedConfig:
    """Write the configuration that belongs to weights of official code."""
    count, name = found.mask_channels, found.network.name
    task: Task = found.task or ("binary" if count == 1 else "regions")
    names = classes or _names(task, count)
    if len(names) != count:
        raise ConfigError(
            f"{len(names)} classes were given; the network has {count} mask channels. Name each, in order."
        )
    data: dict[str, Any] = {
        "channels": found.image_channels,
        "task": task,
        "classes": names,
        "image_size": image_size or found.side,
        "values": values or ("unit" if found.image_channels in (1, 3) else "raw"),
    }
    base = load_preset(PRESETS.get(name, name)).model_dump(mode="json")
    config = make_config(
        base
        | {"description": f"Imported from the authors' code: {name}.", "reproduces": ""}
        | {"model": found.network.model_dump(mode="json"), "data": base["data"] | data}
    )
    return assumed(config)


def _names(task: Task, count: int) -> tuple[str, ...]:
    """Name mask channels of which nothing is known."""
    if task == "exclusive":
        return ("background", *(f"class_{number}" for number in range(1, count)))
    return ("foreground",) if count == 1 else tuple(f"region {number}" for number in range(1, count + 1))


def complete(weights: dict[str, Tensor], config: ResolvedConfig) -> tuple[dict[str, Tensor], list[str]]:
    """Give values to weights that the official code never saves, and make sure that all others are there."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        wanted = build_model(config).state_dict()
    made_anew = check_whole(weights, wanted)
    return wanted | weights, made_anew
