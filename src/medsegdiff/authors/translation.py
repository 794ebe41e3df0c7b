"""Giving the authors' weights the names that they have here."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from medsegdiff.authors.names import prefixes
from medsegdiff.config.networks.guided import GuidedConfig
from medsegdiff.errors import CheckpointError, size, some

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
