"""ResUNet is as large as its reproductions, and its steps up are theirs."""

from __future__ import annotations

import pytest
import torch

from medsegdiff.config.networks.resunet import ResUNetConfig
from medsegdiff.errors import ConfigError
from medsegdiff.models.base import MODELS
from tests.makers import configured, randomised


def test_it_is_as_large_as_its_reproductions() -> None:
    with torch.device("meta"):
        model = MODELS.build("resunet", ResUNetConfig(), image_channels=3, mask_channels=1)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(22.01e6, rel=1e-3)


def test_a_step_up_normalises_what_is_rectified() -> None:
    """Half from below, half from the encoder, ReLU, then the norm: what comes out has mean 0 and both signs."""
    model = MODELS.build("resunet", ResUNetConfig(widths=(4, 8), blocks=(1, 1)), image_channels=1, mask_channels=1)
    step = randomised(model).condition_model.up[0].train()
    x, skip = torch.randn(4, 8, 5, 6), torch.randn(4, 4, 10, 12)
    below = torch.einsum("bchw,coij->bohiwj", x, step.up.weight).reshape(4, 128, 10, 12)
    below = below + step.up.bias[:, None, None]
    beside = torch.einsum("bchw,oc->bohw", skip, step.skip.weight[..., 0, 0]) + step.skip.bias[:, None, None]
    both = torch.cat([below, beside], dim=1).clamp(min=0)
    centred = both - both.mean(dim=(0, 2, 3), keepdim=True)
    scaled = centred / (centred.square().mean(dim=(0, 2, 3), keepdim=True) + 1e-5).sqrt()
    by_hand = scaled * step.norm.weight[:, None, None] + step.norm.bias[:, None, None]
    torch.testing.assert_close(step(x, skip), by_hand, rtol=1e-4, atol=1e-4)


def test_stages_need_a_width_and_a_number_of_blocks_each() -> None:
    with pytest.raises(ConfigError, match="widths has 2 stages, blocks 3"):
        configured("resunet", "binary", "model.blocks=[1, 1, 1]")
