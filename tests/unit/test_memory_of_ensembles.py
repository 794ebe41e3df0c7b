"""Memory of an ensemble: that of the masks denoised at once, however many members there are."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from medsegdiff.fusion.mixture import Mixture
from medsegdiff.inference.ensemble import EnsembleSampler
from medsegdiff.models.base import build_model
from tests.makers import small_config

CONFIG = small_config("data.channels=1", "data.task=binary", "data.classes=[lesion]")
MASK = 32 * 32 * 4
"""Bytes of a mask."""


class Held(TorchDispatchMode):
    """Counts the bytes of the storages that are alive; also on the meta device, where nothing is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and (key := tensor.untyped_storage()._cdata) not in self.alive:
                self.alive[key] = tensor.untyped_storage().nbytes()
                weakref.finalize(tensor.untyped_storage(), self.alive.pop, key)
        self.most = max(self.most, sum(self.alive.values()))
        return made


def peak(members: int, *, at_once: int = 10, steps: int = 2) -> int:
    """Bytes that tensors hold at most while an ensemble is drawn."""
    sampling = CONFIG.sampling.model_copy(update={"members": members, "batch_size": at_once, "steps": steps})
    with torch.device("meta"):
        model, image = build_model(CONFIG), torch.zeros(1, 1, 32, 32)
    sampler = EnsembleSampler(model, CONFIG, sampling, precision="fp32", mixture=Mixture())
    with Held() as held:
        sampler.draw(image, ["image"], seed=0)
    return held.most


def test_what_is_counted_is_what_is_alive() -> None:
    with Held() as held:
        kept = torch.zeros(1000)
        for _ in range(5):
            torch.ones(500).view(5, 100)
        del kept
        torch.ones(200)
    assert held.most == 4 * 1500
    assert sum(held.alive.values()) == 0


def test_members_beyond_those_denoised_at_once_cost_no_more_than_their_masks() -> None:
    ten, forty, together = peak(10), peak(40), peak(40, at_once=40)
    assert ten > 100 * MASK
    assert forty - ten <= 3 * 30 * MASK  # as they come, put together, and decoded
    assert together > 3 * ten


def test_more_steps_take_no_more_memory_than_their_tables() -> None:
    tables = 2 * 15**2 * 4  # of the NBP-Filters, by step: 15 radii on 8 × 8 tokens
    assert 0 <= peak(10, steps=8) - peak(10, steps=3) <= 2 * 5 * tables
