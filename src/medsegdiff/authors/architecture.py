"""Finding out from the shapes of weights which of the authors' networks they belong to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from medsegdiff.config.base import NetworkConfig, settings_of
from medsegdiff.config.networks.guided import GuidedConfig
from medsegdiff.errors import CheckpointError, some
from medsegdiff.types import Task

MARKS = ("input_blocks.0.0.weight", "time_embed.0.weight", "out.2.weight", "hwm.seg_outputs.0.weight")
"""Weights that all networks of theirs have."""


@dataclass(frozen=True)
class Architecture:
    """What weights tell of their network."""

    network: NetworkConfig
    image_channels: int
    mask_channels: int
    task: Task | None = None
    """What the mask channels are; ``None``: one structure, or regions that may overlap."""
    side: int = 256
    """Of the images in pixels that it was trained on."""


def infer(state: Mapping[str, Tensor], *, heads: int = 1) -> Architecture:
    """Find out what network weights of the authors belong to."""
    if missing := [name for name in MARKS if name not in state]:
        raise CheckpointError(
            f"These are no weights of the authors' MedSegDiff: {some(missing)} are missing; found {_found(state)}. "
            "Give a file that their segmentation_train.py saved (savedmodel….pt or emasavedmodel….pt), or a checkpoint "
            "of one of the systems that 'medsegdiff import --help' names."
        )
    mask_channels = state["hwm.seg_outputs.0.weight"].shape[0]
    image_channels = state["hwm.conv_blocks_context.0.blocks.0.conv.weight"].shape[1]
    values = _denoiser(state) | {
        "name": "medsegdiff-v1" if "hwm.ffparser.0.complex_weight" in state else "release",
        "num_heads": heads,
        "learn_sigma": state["out.2.weight"].shape[0] == 2 * mask_channels,
        "condition_widths": tuple(_numbered(state, r"hwm\.conv_blocks_context\.(\d+)\.blocks\.1\.conv\.weight")),
    }
    if values["name"] == "medsegdiff-v1":
        values["filter_size"] = 2 * state["hwm.ffparser.0.complex_weight"].shape[1]
    try:
        network = settings_of(values["name"]).model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        raise CheckpointError(f"These weights belong to a network that can't be rebuilt: {problem['msg']}.") from None
    assert isinstance(network, GuidedConfig)
    return Architecture(network, image_channels, mask_channels, side=trained_size(network))


ATTENDED = 16
"""Side in pixels of the features that their networks attend to, unless told otherwise."""


def trained_size(network: GuidedConfig) -> int:
    """Guess on what images a network was trained: their attention is where features have a side of 16 pixels."""
    levels = network.attention_levels
    return int(ATTENDED * 2 ** levels[0]) if len(levels) == 1 else 256


def _found(state: Mapping[str, Tensor]) -> str:
    return some(list(state), most=3) if state else "nothing"


def _denoiser(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Walk down the denoiser: a halving begins a new level."""
    channels = state["input_blocks.0.0.weight"].shape[0]
    levels: list[list[int]] = [[]]
    attended = set()
    for number in range(1, 1 + len(list(_numbered(state, r"input_blocks\.(\d+)\.0\.(?:op|in_layers\.2)\.weight")))):
        if f"input_blocks.{number}.0.op.weight" in state:
            levels.append([])
            continue
        levels[-1].append(state[f"input_blocks.{number}.0.in_layers.2.weight"].shape[0])
        if f"input_blocks.{number}.1.qkv.weight" in state:
            attended.add(len(levels) - 1)
    if any(not level or len(level) != len(levels[0]) or len(set(level)) > 1 for level in levels):
        raise CheckpointError(f"These weights belong to a network whose levels differ in kind: {levels} channels.")
    return {
        "channels": channels,
        "multiples": tuple(level[0] // channels for level in levels),
        "num_blocks": len(levels[0]),
        "attention_levels": tuple(sorted(attended)),
        "scale_shift": state["input_blocks.1.0.emb_layers.1.weight"].shape[0] == 2 * levels[0][0],
    }


def _numbered(state: Mapping[str, Tensor], pattern: str) -> Iterator[int]:
    """List the output channels of the weights whose names match, by the number in their names."""
    found = {int(match[1]): state[name].shape[0] for name in state if (match := re.fullmatch(pattern, name))}
    return (found[number] for number in sorted(found))
