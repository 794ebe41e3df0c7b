"""The networks that the paper compares with: their size, what they look at and how often, and their parts."""

from __future__ import annotations

import pytest
import torch
from scipy import ndimage
from torch.nn import functional as F

from medsegdiff.config.load import load_preset
from medsegdiff.config.spec import assumed
from medsegdiff.data.loader import as_batch
from medsegdiff.errors import ConfigError
from medsegdiff.inference.ensemble import EnsembleSampler
from medsegdiff.models.base import Budget, budget, build_model
from medsegdiff.models.segdiff import RRDB, DenseBlock, SegDiffCondition
from medsegdiff.nn.transformer import TransformerBottom, TransformerLayer, positions_at
from tests.makers import denoised, losses_of, randomised, small_network


@pytest.fixture(scope="module")
def costs() -> dict[str, Budget]:
    return {
        name: budget(assumed(load_preset(name)))
        for name in ("ensdiff", "segdiff", "msd-transunet", "anchor", "pp", "v2-paper")
    }


@pytest.mark.parametrize(
    ("preset", "parameters", "tolerance"),
    [
        ("ensdiff", 113.7e6, 1e-3),  # counted of the authors' code
        ("segdiff", 164.2e6, 1e-3),
        ("pp", 7594e6, 1e-3),
        ("msd-transunet", 118e6, 0.02),  # table 5 of the paper
    ],
)
def test_parameters(costs: dict[str, Budget], preset: str, parameters: float, tolerance: float) -> None:
    assert costs[preset].parameters == pytest.approx(parameters, rel=tolerance)


def test_operations_are_those_counted_of_the_authors_code(costs: dict[str, Budget]) -> None:
    assert 2 * costs["ensdiff"].denoiser_gmac == pytest.approx(497, rel=0.001)
    assert 2 * costs["segdiff"].condition_gmac == pytest.approx(1150, rel=0.001)
    assert 2 * costs["segdiff"].denoiser_gmac == pytest.approx(1707 - 1150, rel=0.002)
    assert 2 * costs["pp"].denoiser_gmac == pytest.approx(34384, rel=0.001)


def test_the_anchor_is_the_condition_model_of_the_paper_and_its_denoiser_is_free(costs: dict[str, Budget]) -> None:
    paper = costs["v2-paper"]
    assert costs["anchor"].parts == {"condition_model": paper.parts["condition_model"]}
    assert costs["anchor"].denoiser_gmac == 0
    bare = ("model.anchor_levels=[]", "model.semantic_condition=none", "model.see_image=true")
    assert costs["anchor"].condition_gmac == budget(assumed(load_preset("v2-paper", bare))).condition_gmac
    assert costs["anchor"].condition_gmac < paper.condition_gmac


ALIKE = ("v1-tiny", "ensdiff-tiny", "segdiff-tiny", "msd-transunet-tiny", "anchor-tiny", "v2-tiny")
"""Small presets with one recipe; the others have recipes of their own."""


@pytest.mark.parametrize("name", ALIKE)
def test_small_presets_have_the_recipe_of_v2_tiny_and_a_size_to_compare(name: str) -> None:
    ours, reference = load_preset(name), load_preset("v2-tiny")
    assert (ours.diffusion, ours.loss, ours.train) == (
        reference.diffusion,
        reference.loss,
        reference.train.model_copy(update={"val_steps": ours.train.val_steps}),
    )
    assert 1e6 < budget(assumed(ours)).parameters < 4e6


def test_the_image_of_segdiff_is_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_network("segdiff", "sampling.steps=4", "sampling.members=3")
    model = randomised(build_model(config))
    looks: list[int] = []
    model.condition_model.register_forward_hook(lambda *_: looks.append(1))
    image = torch.randn(2, 3, 16, 16)
    drawn = EnsembleSampler(model, config, config.sampling).draw(image, ["a", "b"], seed=0).probability
    assert len(looks) == 1
    assert (drawn[0] - drawn[1]).abs().max() > 1e-3


def test_segdiff_adds_the_images_features_to_the_masks() -> None:
    """What the image adds is the same for every mask: moved to the stem's bias, nothing changes."""
    model = randomised(build_model(small_network("segdiff")))
    x_t, t = torch.randn(2, 1, 16, 16), torch.tensor([3.0, 300.0])
    condition = model.condition(torch.zeros(2, 3, 16, 16))
    flat = condition.features.mean(dim=(0, 2, 3))
    uniform = SegDiffCondition(None, flat.view(1, -1, 1, 1).expand_as(condition.features))
    expected = denoised(model, x_t, t, uniform)
    with torch.no_grad():
        model.diffusion_model.stem.bias += flat
    nothing = SegDiffCondition(None, torch.zeros_like(condition.features))
    assert torch.allclose(denoised(model, x_t, t, nothing), expected, atol=1e-4)


def test_a_dense_block_is_five_convolutions_of_all_before_them() -> None:
    block = DenseBlock(6, 4)
    x = torch.randn(1, 6, 8, 8)
    seen = [x]
    for convolution in block.convolutions[:4]:
        made = F.conv2d(torch.cat(seen, dim=1), convolution.weight, convolution.bias, padding=1)
        seen.append(torch.where(made > 0, made, 0.2 * made))
    last = block.convolutions[4]
    added = F.conv2d(torch.cat(seen, dim=1), last.weight, last.bias, padding=1)
    assert torch.allclose(block(x), x + 0.2 * added, atol=1e-5)


def test_dense_blocks_that_add_nothing_leave_a_residual_of_a_fifth() -> None:
    whole = RRDB(4, 2)
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.zero_()
    x = torch.randn(1, 4, 5, 5)
    assert torch.allclose(whole(x), 1.2 * x)


def test_a_layer_of_the_transformer_is_pytorchs() -> None:
    ours = TransformerLayer(12, heads=3, ratio=2).eval()
    theirs = torch.nn.TransformerEncoderLayer(12, 3, 24, 0.0, F.gelu, batch_first=True, norm_first=True).eval()
    pairs = {
        "self_attn.in_proj_": ours.qkv,
        "self_attn.out_proj.": ours.out,
        "linear1.": ours.mlp[0],
        "linear2.": ours.mlp[2],
        "norm1.": ours.norm_attention,
        "norm2.": ours.norm_mlp,
    }
    theirs.load_state_dict(
        {name + kind: getattr(part, kind) for name, part in pairs.items() for kind in ("weight", "bias")}
    )
    tokens = torch.randn(2, 7, 12)
    assert torch.allclose(ours(tokens), theirs(tokens), atol=1e-5)


def test_a_layer_drops_values_in_training_alone() -> None:
    layer, tokens = TransformerLayer(12, heads=3, ratio=2, dropout=0.5), torch.randn(2, 7, 12)
    assert not torch.equal(layer.train()(tokens), layer(tokens))
    assert torch.equal(layer.eval()(tokens), layer(tokens))


def test_learned_positions_are_resized_as_by_scipys_zoom() -> None:
    table = torch.randn(1, 16, 5)
    grid = table.view(4, 4, 5).numpy()
    zoomed = ndimage.zoom(grid, (6 / 4, 9 / 4, 1), order=1)
    assert torch.allclose(positions_at(table, (6, 9)), torch.from_numpy(zoomed).reshape(1, 54, 5), atol=1e-6)
    assert positions_at(table, (4, 4)) is table


def test_the_transformer_knows_where_a_token_is_and_when() -> None:
    bottom = TransformerBottom(6, time_dim=8, dim=16, depth=1, heads=2, ratio=2)
    with torch.no_grad():
        bottom.leave.weight.zero_()
        bottom.leave.weight[:, :6, 1, 1] = torch.eye(6)  # no neighbours: only the transformer tells places apart
    x, time = torch.randn(1, 6, 4, 4), torch.randn(2, 8)
    plain = bottom(x, time[:1])
    assert not torch.allclose(bottom(x.flip(-1), time[:1]).flip(-1), plain, atol=1e-4)
    assert not torch.allclose(bottom(x, time[1:]), plain, atol=1e-4)


def test_heads_that_do_not_divide_are_explained() -> None:
    with pytest.raises(ConfigError, match="transformer_dim is 16; it must be a multiple of transformer_heads, 3"):
        small_network("medsegdiff-transunet", "model.transformer_heads=3")


def test_members_of_the_anchor_are_its_own_probability_whatever_the_steps() -> None:
    config = small_network("anchor", "sampling.members=3", "sampling.steps=5")
    model = randomised(build_model(config))
    image = torch.randn(2, 3, 16, 16)
    drawn = EnsembleSampler(model, config, config.sampling, precision="fp32").draw(image, ["a", "b"], seed=0)
    assert torch.allclose(drawn.probability, drawn.anchor.expand_as(drawn.probability), atol=1e-5)
    assert torch.allclose(drawn.anchor, model.condition(image).logits.sigmoid(), atol=1e-6)
    assert load_preset("anchor").sampling.mode == "mean"


def test_the_anchor_is_trained_by_its_own_loss_alone() -> None:
    """The gradient is that of (Dice + β cross-entropy) / α, written out."""
    config = small_network("anchor", "data.task=binary", "data.classes=[a]")
    model = randomised(build_model(config))
    image, mask = torch.randn(2, 3, 16, 16), (torch.rand(2, 1, 16, 16) > 0.5).float()
    batch = as_batch({"image": image, "mask": mask, "positions": (0, 1)})
    losses_of(model, batch, config, signal_scale=1.0).total.backward()
    got = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    p = model.condition(image).logits.sigmoid()
    dice = 1 - (2 * (p * mask).sum(dim=(1, 2, 3)) + 1) / ((p + mask).sum(dim=(1, 2, 3)) + 1)
    entropy = -(mask * p.log() + (1 - mask) * (1 - p).log()).mean(dim=(1, 2, 3))
    ((dice + 10 * entropy) / 5).mean().backward()
    assert all(
        torch.allclose(a, parameter.grad, atol=1e-4, rtol=1e-3)
        for a, parameter in zip(got, model.parameters(), strict=True)
    )
