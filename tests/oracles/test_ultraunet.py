"""UltraUNet is the classic U-Net, as large as it is, and sees as far."""

from __future__ import annotations

import pytest
import torch

from medsegdiff.config.load import load_preset
from medsegdiff.config.spec import assumed
from medsegdiff.models.base import budget, build_model
from tests.makers import randomised, small_network


def test_it_has_the_parameters_of_the_classic_unet() -> None:
    assert budget(assumed(load_preset("ultraunet"))).parameters == pytest.approx(31.04e6, rel=1e-3)


def test_a_pixel_is_seen_as_far_as_the_convolutions_and_poolings_reach() -> None:
    """With three levels, two convolutions at each: down, and at all but the coarsest on the way up."""
    model = randomised(build_model(small_network("ultraunet")))
    image = torch.zeros(1, 3, 96, 96, requires_grad=True)
    model.condition(image).logits[0, 0, 48, 48].backward()
    seen = image.grad.abs().sum(dim=(0, 1)).nonzero()
    coarsest = ((48 - 2) // 2 - 2) // 2 - 2  # the first cell of the third level that counts
    assert seen.min().item() == (coarsest * 2 - 2) * 2 - 2
