"""What the official networks of the paper's rivals computed, with weights that follow from their names."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.authors import drawn


@dataclass(frozen=True)
class Rival:
    """Arrays by name (``x`` went in), and the weights by their original names."""

    arrays: dict[str, Tensor]
    state: dict[str, Tensor]


def stored(request: pytest.FixtureRequest, name: str) -> dict[str, np.ndarray]:
    """Read a file of fixtures, or skip the test where there is none."""
    file = Path(request.config.getoption("--data-root")).parent / "parity" / f"{name}.npz"
    if not file.is_file():
        pytest.skip(f"no fixture of the official code at {file} (set --data-root to the folder of data beside it)")
    with np.load(file) as held:
        return {key: held[key] for key in held.files}


def read_rival(request: pytest.FixtureRequest, name: str) -> Rival:
    held = stored(request, name)
    table, salt = json.loads(str(held["table"])), str(held["salt"])
    state = {key: drawn(salt + key, shape, kind) for key, (shape, kind) in table.items() if kind != "index"}
    return Rival({key: torch.from_numpy(value) for key, value in held.items() if value.dtype.kind == "f"}, state)


def load(network: nn.Module, state: dict[str, Tensor], keys: Sequence[tuple[str, str]], unused: Sequence[str]) -> None:
    """Give a network on the meta device the original weights; each must find its place, but for those never used."""
    ours = {}
    for name, value in state.items():
        if any(re.match(pattern, name) for pattern in unused):
            continue
        for pattern, replacement in keys:
            name = re.sub(pattern, replacement, name)
        ours[name] = value
    network.load_state_dict(ours, assign=True)


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest error, in parts of the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())
