"""v2-fast costs less than nnU-Net's default inference: 5 folds × 4 mirrors of a 2-D UNet of 29.6 GFLOP at 256 px."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from medsegdiff.config.load import load_preset
from medsegdiff.config.spec import assumed
from medsegdiff.models.base import budget, build_model

NNUNET_GFLOP = 20 * 29.6


def test_ten_members_cost_less_than_twenty_forwards_of_nnunet() -> None:
    config = assumed(load_preset("v2-fast"))
    sampling = config.sampling
    assert (sampling.members, sampling.steps, config.data.image_size) == (10, 5, 256)
    with torch.device("meta"):
        model = build_model(config)
        image, x_t, t = torch.empty(1, 3, 256, 256), torch.empty(10, 1, 256, 256), torch.empty(1)
    with FlopCounterMode(display=False) as counted:
        condition = model.condition(image).expand(0, 10)
        for _ in range(sampling.steps):
            model.denoise(x_t, model.at(t, (256, 256)), condition)
    assert counted.get_total_flops() / 1e9 < NNUNET_GFLOP / 2
    costs = budget(config)
    assert costs.denoiser_gmac < 0.1 * costs.condition_gmac
    assert 2 * costs.condition_gmac < 40


@pytest.mark.parametrize("name", ["v2-fast", "v2-fast-tiny"])
def test_the_papers_parts_are_all_there(name: str) -> None:
    with torch.device("meta"):
        model = build_model(assumed(load_preset(name))).diffusion_model
    assert len(model.anchors) == 2
    assert len(model.ss_former.filters) == 2 * len(model.ss_former.blocks) >= 4
    assert load_preset(name).sampling.spacing == "regions"


def test_the_tiny_one_is_about_as_large_as_v2_tiny() -> None:
    small, plain = (budget(assumed(load_preset(name))) for name in ("v2-fast-tiny", "v2-tiny"))
    assert small.parameters == pytest.approx(plain.parameters, rel=0.1)
    assert small.condition_gmac + small.denoiser_gmac < 1.5 * (plain.condition_gmac + plain.denoiser_gmac)
