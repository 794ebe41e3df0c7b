"""Every preset loads, builds and says what it is for."""

from __future__ import annotations

import pytest

from medsegdiff.config.load import load_preset, preset_names
from medsegdiff.config.spec import assumed
from medsegdiff.diffusion.schedule import make_schedule
from medsegdiff.diffusion.spacing import make_table
from medsegdiff.fusion.fusers import FUSERS
from medsegdiff.models.base import budget


@pytest.mark.parametrize("name", preset_names())
def test_preset(name: str) -> None:
    config = load_preset(name)
    assert config.description
    costs = budget(assumed(config))
    assert costs.parameters > 0
    assert sum(costs.parts.values()) == costs.parameters
    assert config.sampling.fusion in FUSERS
    table = make_table(
        config.sampling.sampler,
        make_schedule(config.diffusion.schedule, signal_scale=config.diffusion.signal_scale),
        num_steps=config.sampling.steps,
        spacing=config.sampling.spacing,
    )
    assert len(table) == config.sampling.steps


def test_the_four_presets_are_there_and_ordered_by_size() -> None:
    sizes = [budget(assumed(load_preset(name))).parameters for name in ("v2-tiny", "v2-small", "v2", "v2-paper")]
    assert sizes == sorted(sizes)
