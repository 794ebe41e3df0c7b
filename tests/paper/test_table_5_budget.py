"""Table 5: 46 M parameters; 983 Gflops, read as 98.3 GMAC per forward times 10 members."""

from __future__ import annotations

import pytest

from medsegdiff.config.load import load_preset
from medsegdiff.config.spec import assumed
from medsegdiff.models.base import budget, build_model


@pytest.mark.parametrize("preset", ["v2-paper", "v2"])
def test_the_papers_network_keeps_the_papers_budget(preset: str) -> None:
    costs = budget(assumed(load_preset(preset)))
    assert costs.parameters == pytest.approx(46e6, rel=0.03)
    assert costs.condition_gmac + costs.denoiser_gmac <= 98.3


def test_operations_of_a_small_condition_model_are_those_counted_by_hand() -> None:
    """Two levels of one block, widths 4 and 8, no U-SA and no SS-Former, 16×16 pixels, one channel in and out."""
    config = assumed(
        load_preset(
            "v2-tiny",
            [
                "model.condition_widths=[4, 8]",
                "model.diffusion_widths=[4, 8]",
                "model.patch=1",
                "model.anchor_levels=[]",
                "model.semantic_condition=none",
                "model.see_image=true",
                "data.channels=1",
                "data.image_size=16",
            ],
        )
    )
    fine, coarse = 16 * 16, 8 * 8
    encoder = 9 * fine * (1 * 4 + 2 * 4 * 4) + 9 * coarse * (4 * 8 + 2 * 8 * 8)
    decoder = 9 * fine * 8 * 4 + fine * (9 * 8 * 4 + 9 * 4 * 4 + 8 * 4)  # up, then a block of 8 to 4 channels
    head = 9 * fine * 4 * 1
    parameters = 9 * (1 * 4 + 4 * 8 + 8 * 4 + 4)  # stem, down, up, head
    parameters += 9 * 2 * (4 * 4 + 8 * 8) + 9 * (8 * 4 + 4 * 4) + 8 * 4  # blocks, and the way past the last of them
    bare = [p for p in build_model(config).condition_model.parameters() if p.ndim == 4]
    assert sum(p.numel() for p in bare) == parameters
    assert budget(config).condition_gmac == pytest.approx((encoder + decoder + head) / 1e9)


def test_the_papers_values_stand_in_its_preset() -> None:
    config = load_preset("v2-paper")
    assert (config.loss.alpha, config.loss.beta, config.loss.anchor_weighting) == (5, 10, "indicator")
    assert (config.model.ss_former_blocks, config.model.filter_blocks) == (4, 6)
    assert (config.train.batch_size, config.train.learning_rate, config.data.image_size) == (32, 1e-4, 256)
    assert (config.sampling.steps, config.sampling.members, config.sampling.fusion) == (100, 10, "staple")
    assert not config.data.augment
    assert (config.diffusion.target, config.diffusion.schedule, config.diffusion.signal_scale) == ("eps", "linear", 1)
