"""UNETR and Swin-UNETR are MONAI's networks, without weights that nothing uses, for images of any size."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets.unetr import UNETR

from medsegdiff.config.load import load_preset
from medsegdiff.config.spec import assumed
from medsegdiff.models.base import Budget, budget, build_model
from tests.makers import randomised, small_network


@pytest.mark.parametrize(("preset", "millions", "gflop"), [("unetr", 87.73, 52.7), ("swinunetr", 25.14, 36.0)])
def test_costs_are_those_counted_of_the_published_networks(preset: str, millions: float, gflop: float) -> None:
    costs: Budget = budget(assumed(load_preset(preset)))
    assert costs.parameters == pytest.approx(millions * 1e6, rel=1e-3)
    assert 2 * costs.condition_gmac == pytest.approx(gflop, rel=2e-3)


def test_ours_says_what_monais_unetr_says_at_the_size_it_was_built_for() -> None:
    model = randomised(build_model(small_network("unetr")))
    theirs = UNETR(3, 1, img_size=32, feature_size=4, hidden_size=12, mlp_dim=24, num_heads=2, spatial_dims=2).eval()
    missing, strange = theirs.load_state_dict(model.condition_model.state_dict(), strict=False)
    assert strange == []
    assert all("cross_attn" in name for name in missing)
    image = torch.randn(2, 3, 32, 32)
    assert torch.equal(model.condition(image).logits, theirs(image))


def test_positions_are_resized_for_other_images() -> None:
    """Where they are equal everywhere, only the size changes: a network built for it says the same."""
    model, wide = (randomised(build_model(small_network("unetr", f"model.image_size={side}"))) for side in (32, 64))
    state = model.state_dict()
    name = "condition_model.vit.patch_embedding.position_embeddings"
    state[name] = state[name][:, :1].repeat(1, 4, 1)
    model.load_state_dict(state)
    wide.load_state_dict(state | {name: state[name][:, :1].repeat(1, 16, 1)})
    image = torch.randn(1, 3, 64, 64)
    assert torch.allclose(model.condition(image).logits, wide.condition(image).logits, atol=1e-5)
