"""How the authors' networks name their weights, and how ours do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from medsegdiff.config.networks.guided import GuidedConfig
from medsegdiff.errors import CheckpointError, size, some

BLOCK = {
    "in_layers.0": "norm_in",
    "in_layers.2": "conv_in",
    "emb_layers.1": "time",
    "out_layers.0": "norm_out",
    "out_layers.3": "conv_out",
    "skip_connection": "around",
}
ATTENTION = {"norm": "norm", "qkv": "qkv", "proj_out": "out"}
NORMED = {"conv": "0", "instnorm": "2"}
"""Parts of their blocks and of ours."""


def prefixes(config: GuidedConfig) -> dict[str, str]:
    """Pair the name of each layer of theirs with ours."""
    return {
        **_trunk(),
        **dict(_down(config)),
        **dict(_up(config)),
        **dict(_context(config)),
        **dict(_dynamic(config)),
    }


def _trunk() -> dict[str, str]:
    ours = "diffusion_model"
    pairs = {
        "time_embed.0": f"{ours}.time.mlp.0",
        "time_embed.2": f"{ours}.time.mlp.2",
        "input_blocks.0.0": f"{ours}.stem",
        "out.0": f"{ours}.head.0",
        "out.2": f"{ours}.head.2",
    }
    pairs |= _block("middle_block.0", f"{ours}.before") | _attention("middle_block.1", f"{ours}.before")
    return pairs | _block("middle_block.2", f"{ours}.after")


def _block(theirs: str, ours: str) -> dict[str, str]:
    return {f"{theirs}.{a}": f"{ours}.block.{b}" for a, b in BLOCK.items()}


def _attention(theirs: str, ours: str) -> dict[str, str]:
    return {f"{theirs}.{a}": f"{ours}.attention.{b}" for a, b in ATTENTION.items()}


def _down(config: GuidedConfig) -> Iterator[tuple[str, str]]:
    number = 1
    for level in range(len(config.multiples)):
        if level:
            yield f"input_blocks.{number}.0.op", f"diffusion_model.down.{level - 1}"
            number += 1
        for index in range(config.num_blocks):
            ours = f"diffusion_model.levels_down.{level}.{index}"
            yield from _block(f"input_blocks.{number}.0", ours).items()
            yield from _attention(f"input_blocks.{number}.1", ours).items()
            number += 1


def _up(config: GuidedConfig) -> Iterator[tuple[str, str]]:
    number = 0
    for level in reversed(range(len(config.multiples))):
        for index in range(config.num_blocks + 1):
            ours = f"diffusion_model.levels_up.{level}.{index}"
            yield from _block(f"output_blocks.{number}.0", ours).items()
            yield from _attention(f"output_blocks.{number}.1", ours).items()
            number += 1
        if level:
            place = 1 + (level in config.attention_levels)
            yield f"output_blocks.{number - 1}.{place}.conv", f"diffusion_model.up.{level - 1}.conv"


def _context(config: GuidedConfig) -> Iterator[tuple[str, str]]:
    count = len(config.condition_widths)
    for a, b in NORMED.items():
        for index in (0, 1):
            for level in range(count):
                theirs = f"hwm.conv_blocks_context.{level}.blocks.{index}.{a}"
                yield theirs, f"condition_model.levels.{level}.{index}.{b}"
                theirs = f"hwm.conv_blocks_localization.{count - 1 - level}.{index}.blocks.0.{a}"
                yield theirs, f"condition_model.up.{level}.{index}.{b}"
            yield f"hwm.conv_blocks_context.{count}.{index}.blocks.0.{a}", f"condition_model.bottleneck.{index}.{b}"
    yield "hwm.seg_outputs.0", "condition_model.head"


def _dynamic(config: GuidedConfig) -> Iterator[tuple[str, str]]:
    for gate in range(len(config.condition_widths) - 1):
        yield f"hwm.conv_trans_blocks_a.{gate}", f"gates.{gate}.enter"
        yield f"hwm.conv_trans_blocks_b.{gate}", f"gates.{gate}.map"
        yield f"hwm.ffparser.{gate}", f"gates.{gate}.parser"
    yield "hwm.emb", "embedding"


LAST = {"complex_weight": "weight"}
"""What is at the end of a name, where it differs."""
NEVER_SAVED = ("embedding.weight", "embedding.bias")
"""In their V1 this convolution is made anew at each call, so no checkpoint of theirs holds it."""


def translate(state: Mapping[str, Tensor], network: GuidedConfig) -> dict[str, Tensor]:
    """Rename weights."""
    pairs = prefixes(network)
    split = {name: name.rpartition(".") for name in state}
    if strange := [name for name, (layer, _, _) in split.items() if layer not in pairs]:
        raise CheckpointError(
            f"These weights belong to a variant of the authors' code that is not known here: {len(strange)} are "
            f"unknown: {some(strange, most=3)}. Versions 1 and 'new' can be imported."
        )
    return {f"{pairs[layer]}.{LAST.get(last, last)}": state[name] for name, (layer, _, last) in split.items()}


def check_whole(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """Make sure that weights fit a network."""
    missing = [name for name in wanted if name not in given and not name.endswith("num_batches_tracked")]
    problems = [f"{name} is missing" for name in missing if name not in NEVER_SAVED]
    problems += [f"{name} has no place" for name in given if name not in wanted]
    problems += [
        f"{name} is {size(value.shape)} instead of {size(wanted[name].shape)}"
        for name, value in given.items()
        if name in wanted and value.shape != wanted[name].shape
    ]
    if problems:
        raise CheckpointError(
            f"The weights do not make a whole network: {some(problems, most=3)}. Give the file as their code saved it."
        )
    return [name for name in missing if name in NEVER_SAVED]
