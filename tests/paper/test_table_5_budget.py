"""Table 5: 46 M parameters; 983 Gflops, read as 98.3 GMAC per forward times 10 members."""

from __future__ import annotations

import pytest

from medsegdiff.checkpoint import build_model
from medsegdiff.config import load_preset
from medsegdiff.models.budget import budget


@pytest.mark.parametrize("preset", ["v2-paper", "v2"])
def test_the_papers_network_keeps_the_papers_budget(preset: str) -> None:
    costs = budget(load_preset(preset))
    assert costs.parameters == pytest.approx(46e6, rel=0.03)
    assert costs.condition_gmac + costs.denoiser_gmac <= 98.3


def test_counts_are_those_of_the_real_network() -> None:
    config = load_preset("v2-tiny")
    assert budget(config).parameters == sum(p.numel() for p in build_model(config).parameters())


def test_operations_of_a_single_convolution_are_counted_by_hand() -> None:
    """The stem of v2-tiny: 3×3 convolution of 3·4 folded channels to 32 on a 64×64 grid, and nothing cheaper."""
    config = load_preset("v2-tiny")
    stem = 9 * 12 * 32 * 64 * 64 / 1e9
    assert stem < budget(config).condition_gmac < 2.0


def test_the_papers_values_stand_in_its_preset() -> None:
    config = load_preset("v2-paper")
    assert (config.loss.alpha, config.loss.beta, config.loss.anchor_weighting) == (5, 10, "indicator")
    assert (config.model.ss_former_blocks, config.model.filter_blocks) == (4, 6)
    assert (config.train.batch_size, config.train.learning_rate, config.data.image_size) == (32, 1e-4, 256)
    assert (config.sampling.num_steps, config.sampling.num_samples, config.sampling.fusion) == (100, 10, "staple")
    assert (config.diffusion.target, config.diffusion.schedule, config.diffusion.signal_scale) == ("eps", "linear", 1)
