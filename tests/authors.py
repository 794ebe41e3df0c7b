"""Checkpoints as the authors' code saves them: from the fixtures of its output, or small ones with their names."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medsegdiff.authors.names import LAST, NEVER_SAVED, prefixes
from medsegdiff.config.run import Config
from medsegdiff.models.base import DiffusionModel

DRAWN: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "weight": lambda n: n / np.sqrt(np.prod(n.shape[1:])),
    "weight96": lambda n: 96 * n / np.sqrt(np.prod(n.shape[1:])),
    "embed": lambda n: 0.5 * n,
    "bias": lambda n: 0.1 * n,
    "mean": lambda n: 0.1 * n,
    "scale": lambda n: 1 + 0.1 * n,
    "var": lambda n: 1 + 0.1 * np.abs(n),
    "complex": lambda n: 0.5 + 0.5 * n,
    "count": np.zeros_like,
}
"""How the fixtures' weights follow from normal numbers, by kind."""
EMBEDDING = {"hwm.emb.weight": [[512, 480, 1, 1], "weight"], "hwm.emb.bias": [[512], "bias"]}
"""What their version 1 draws anew at each call; in the fixture it has values of its own."""


@dataclass(frozen=True)
class Fixture:
    """What their code computed, and with which weights."""

    x: Tensor
    t: Tensor
    out: Tensor
    cal: Tensor
    state: dict[str, Tensor]


def read_fixture(file: Path) -> Fixture:
    with np.load(file) as stored:
        arrays = {name: torch.from_numpy(stored[name]) for name in ("x", "t", "out", "cal")}
        table, salt = json.loads(str(stored["table"])), str(stored["salt"])
    if any("ffparser" in key for key in table):
        table |= EMBEDDING
    state = {key: drawn(salt + key, shape, kind) for key, (shape, kind) in table.items()}
    return Fixture(state=state, **arrays)


def drawn(seed: str, shape: list[int], kind: str) -> Tensor:
    normal = np.random.RandomState(zlib.crc32(seed.encode())).standard_normal(shape)
    return torch.from_numpy(np.asarray(DRAWN[kind](normal), dtype=np.float32))


def in_their_names(model: DiffusionModel, config: Config) -> dict[str, Tensor]:
    """Name a network's weights as their code would; what it never saves is left out."""
    theirs = {ours: name for name, ours in prefixes(config.model).items()}
    back = {new: old for old, new in LAST.items()}
    state = {}
    for name, value in model.state_dict().items():
        layer, _, last = name.rpartition(".")
        if name not in NEVER_SAVED:
            state[f"{theirs[layer]}.{back[last] if 'parser' in layer else last}"] = value
    return state
