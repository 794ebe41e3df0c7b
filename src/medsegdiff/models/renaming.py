"""Weights under other names: from those of an official checkpoint, or of an encoder, to those of a network here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

Keys = Sequence[tuple[str, str]]
"""Patterns and what replaces them, one after the other."""
PART = re.compile(r"\[(\d+)\]$")
"""Of a name: which part of the weights of that name this is; parts are concatenated."""


def renamed(state: Mapping[str, Tensor], keys: Keys, *, unused: Iterable[str] = ()) -> dict[str, Tensor]:
    """Rename weights, leave out those that no network here has, and put together those that are one here.

    Args:
        state: Weights by their names.
        keys: Patterns of `re.sub`, applied in this order; a new name that ends on [0], [1] … is a part.
        unused: Patterns of names that are left out.

    Returns:
        Weights by their new names.
    """
    found, parts = dict[str, Tensor](), dict[str, dict[int, Tensor]]()
    for name, value in state.items():
        if any(re.search(pattern, name) for pattern in unused):
            continue
        for pattern, replacement in keys:
            name = re.sub(pattern, replacement, name)
        if part := PART.search(name):
            parts.setdefault(name[: part.start()], {})[int(part[1])] = value
        else:
            found[name] = value
    return found | {name: torch.cat([of[place] for place in sorted(of)]) for name, of in parts.items()}
