"""Splitting a network over processes: what is refused, and what it takes of memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medsegdiff.errors import ConfigError
from medsegdiff.models.base import MODELS, build_model
from medsegdiff.training.memory import COPIES, gathered_bytes, split_memory, step_memory
from medsegdiff.training.state import check_divisible
from tests.makers import small_network


@pytest.mark.parametrize("name", sorted(entry.name for entry in MODELS))
def test_most_of_every_network_lies_in_blocks_and_none_of_them_in_another(name: str) -> None:
    with torch.device("meta"):
        model = build_model(small_network(name))
    check_divisible(model, 2)
    units = [module for module in model.modules() if isinstance(module, model.units)]
    assert not [inner for unit in units for inner in unit.modules() if inner is not unit and inner in units]


def test_one_process_and_a_network_without_blocks_are_refused() -> None:
    model = build_model(small_network("anchor"))
    with pytest.raises(ConfigError, match=r"only one.*--num_processes 4"):
        check_divisible(model, 1)
    model.units = (nn.LSTM,)
    with pytest.raises(ConfigError, match=r"Anchor has no block .*LSTM.*sharding=false"):
        check_divisible(model, 2)


def test_each_process_needs_its_share_and_what_is_whole_at_a_time() -> None:
    config = small_network("medsegdiff-v1", "data.channels=1", "data.task=binary", "data.classes=[a]")
    with torch.device("meta"):
        model = build_model(config)
    weights = 4 * sum(parameter.numel() for parameter in model.parameters())
    alone = step_memory(config, precision="fp32")
    half = split_memory(alone, config, 2)
    assert alone.fixed - half.fixed == pytest.approx(COPIES * weights / 2 - gathered_bytes(model))
    assert alone.per_image == half.per_image
