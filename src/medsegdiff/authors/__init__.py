"""Taking over checkpoints of the authors' own code: version 1, and what they ship as version "new"."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medsegdiff.authors.architecture import Architecture, infer
from medsegdiff.authors.names import check_whole, translate
from medsegdiff.config.data import Values
from medsegdiff.config.load import load_preset, make_config
from medsegdiff.config.spec import ResolvedConfig, assumed
from medsegdiff.errors import ConfigError
from medsegdiff.io.atomic import write_json
from medsegdiff.models.base import build_model
from medsegdiff.models.checkpoint import BEST, LAST, save_config, save_weights
from medsegdiff.models.foreign import read_weights
from medsegdiff.training.run import Run

log = logging.getLogger(__name__)

PRESETS = {"medsegdiff-v1": "v1", "release": "release"}
"""With the settings of the authors' README, by network."""
ATTENDED = 16
"""Side in pixels of the features that their networks attend to, unless told otherwise."""


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
    """Make a run of a checkpoint of the authors, which segments, and from which training can start.

    The architecture is found from the weights. No shape tells what else belongs to them: the defaults are what
    the authors' code does.
    """
    run = Run(out)
    run.check_new()
    state = read_weights(file)
    found = infer(state, heads=heads)
    config = describe(found, image_size=image_size, classes=classes, values=values)
    weights, made_anew = complete(state, found, config)
    if made_anew:
        log.warning(
            "%s: their version 1 makes the convolution from the condition's bottleneck anew, with random weights, at "
            "each call, so no checkpoint holds it. Here it has fixed random weights: fine-tune before you trust masks.",
            file,
        )
    out.mkdir(parents=True, exist_ok=True)
    facts = {"imported": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    for name in (BEST, LAST):
        save_weights(out / name, weights, facts)
    write_json(run.record, facts | {"made_anew": made_anew})
    save_config(out, config)
    return Imported(out, found.network.name, sum(v.numel() for v in weights.values()), config, tuple(made_anew))


def describe(
    found: Architecture, *, image_size: int | None, classes: tuple[str, ...] | None, values: Values | None
) -> ResolvedConfig:
    """Write the configuration that belongs to weights of the authors."""
    count = found.mask_channels
    names = classes or (("foreground",) if count == 1 else tuple(f"region {i + 1}" for i in range(count)))
    if len(names) != count:
        raise ConfigError(
            f"{len(names)} classes were given; the network has {count} mask channels. Name each, in order."
        )
    data: dict[str, Any] = {
        "channels": found.image_channels,
        "task": "binary" if count == 1 else "regions",
        "classes": names,
        "image_size": image_size or trained_size(found),
        "values": values or ("unit" if found.image_channels in (1, 3) else "raw"),
    }
    base = load_preset(PRESETS[found.network.name]).model_dump(mode="json")
    description = f"Imported from the authors' code: {found.network.name}."
    config = make_config(
        base
        | {"description": description, "reproduces": "", "model": found.network.model_dump(mode="json")}
        | {"data": base["data"] | data}
    )
    return assumed(config)


def trained_size(found: Architecture) -> int:
    """Guess on what images a network was trained: their attention is where features have a side of 16 pixels."""
    levels = found.network.attention_levels
    return int(ATTENDED * 2 ** levels[0]) if len(levels) == 1 else 256


def complete(
    state: dict[str, Tensor], found: Architecture, config: ResolvedConfig
) -> tuple[dict[str, Tensor], list[str]]:
    """Translate weights, and give values to those that the authors' code never saves."""
    weights = translate(state, found.network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        wanted = build_model(config).state_dict()
    made_anew = check_whole(weights, wanted)
    return wanted | weights, made_anew
