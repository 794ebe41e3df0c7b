"""Parts of the authors' networks: FF-Parser, attention, gates, the norm of narrow networks."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from medsegdiff.config.load import load_preset
from medsegdiff.config.spec import assumed
from medsegdiff.errors import ConfigError
from medsegdiff.models.base import budget, build_model
from medsegdiff.nn.ff_parser import ContextUNet, FFParser, fit_filter
from medsegdiff.nn.guided_unet import SelfAttention, norm_of
from medsegdiff.nn.transformer import TransformerLayer
from tests.makers import randomised, small_network


@pytest.mark.parametrize(("preset", "parameters"), [("v1", 130.5e6), ("release", 129.4e6)])
def test_presets_have_the_size_of_the_authors_networks(preset: str, parameters: float) -> None:
    """As measured of their code; its V1 does not count the convolution that it makes anew at each call."""
    costs = budget(assumed(load_preset(preset)))
    assert costs.parameters - costs.parts.get("embedding", 0) == pytest.approx(parameters, rel=5e-4)


def test_operations_of_the_release_are_those_measured_of_the_authors_code() -> None:
    costs = budget(assumed(load_preset("release")))
    assert 2 * costs.condition_gmac == pytest.approx(24, rel=0.02)
    assert 2 * costs.denoiser_gmac == pytest.approx(497, rel=0.001)


def test_the_ff_parser_with_ones_changes_nothing() -> None:
    parser = FFParser(3, (16, 16))
    with torch.no_grad():
        parser.weight.copy_(torch.tensor([1.0, 0.0]).expand_as(parser.weight))
    for size in ((16, 16), (8, 8), (24, 10), (2, 2)):
        x = torch.randn(2, 3, *size)
        assert torch.allclose(parser(x), x, atol=1e-5)


def test_the_ff_parser_is_a_circular_convolution_whatever_the_size() -> None:
    """A blur over 3×3 pixels, kept as the filter of a 32×32 image, is that blur on other images, too."""
    kernel = torch.tensor([0.25, 0.5, 0.25])
    rows, columns = torch.fft.fftfreq(32), torch.fft.rfftfreq(32)
    response = (0.5 + 0.5 * torch.cos(2 * math.pi * rows))[:, None] * (0.5 + 0.5 * torch.cos(2 * math.pi * columns))
    parser = FFParser(1, (32, 32))
    with torch.no_grad():
        parser.weight.copy_(torch.stack([response, torch.zeros_like(response)], dim=-1)[None])
    for size, tolerance in (((32, 32), 1e-5), ((16, 16), 1e-5), ((64, 48), 0.01), ((20, 36), 0.01)):
        x = torch.randn(1, 1, *size)
        padded = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="circular")
        blurred = torch.nn.functional.conv2d(padded, torch.outer(kernel, kernel)[None, None])
        assert (parser(x) - blurred).abs().max() < tolerance * x.abs().max()


def test_a_filter_is_taken_as_it_is_at_its_own_size() -> None:
    weight = torch.randn(2, 8, 5, dtype=torch.complex64)
    assert fit_filter(weight, (8, 8), (8, 8)) is weight
    coarse = fit_filter(weight, (8, 8), (4, 4))
    assert torch.allclose(coarse, weight[:, ::2, ::2])  # every second frequency is the same in cycles per pixel
    fine = fit_filter(weight, (8, 8), (16, 16))
    assert torch.allclose(fine[:, ::2, ::2], weight)
    assert torch.allclose(fine[:, 15, ::2], (weight[:, 7] + weight[:, 0]) / 2)  # rows are periodic
    assert torch.allclose(fine[:, ::2, 1], (weight[:, :, 0] + weight[:, :, 1]) / 2)


def test_attention_has_its_pixels_in_an_order_that_no_kernel_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flash and memory-efficient kernels take what lies channel by channel; the one that takes all makes L×L maps."""
    strides: list[int] = []
    attend = F.scaled_dot_product_attention

    def watched(*given: torch.Tensor) -> torch.Tensor:
        strides.extend(part.stride(-1) for part in given)
        return attend(*given)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    SelfAttention(32, heads=4)(torch.randn(2, 32, 6, 5))
    TransformerLayer(32, heads=4, ratio=2)(torch.randn(2, 30, 32))
    assert strides == [1] * 6


def test_attention_is_a_softmax_over_all_pixels_by_head() -> None:
    layer = SelfAttention(8, heads=2)
    with torch.no_grad():
        layer.out.weight.copy_(torch.eye(8)[..., None])
        layer.out.bias.zero_()
    x = torch.randn(1, 8, 3, 2)
    tokens = layer.qkv(layer.norm(x).flatten(2))[0]
    for head in range(2):
        q, k, v = tokens[12 * head : 12 * head + 12].split(4)  # each head has its q, k and v together
        weights = torch.softmax(q.T @ k / math.sqrt(4), dim=1)
        seen = (weights @ v.T).T.view(4, 3, 2)
        assert torch.allclose(layer(x)[0, 4 * head : 4 * head + 4], x[0, 4 * head : 4 * head + 4] + seen, atol=1e-5)


@pytest.mark.parametrize("channels", [8, 16, 20, 48])
def test_a_group_of_a_narrow_network_is_more_than_one_channel(channels: int) -> None:
    assert channels / norm_of(channels).num_groups >= 4
    assert norm_of(4 * channels).num_channels == 4 * channels


@pytest.mark.parametrize("channels", [32, 64, 96, 128, 384, 512])
def test_widths_of_the_authors_have_32_groups(channels: int) -> None:
    assert norm_of(channels).num_groups == 32


def test_channels_of_the_context_are_dropped_in_training_only() -> None:
    net = ContextUNet(3, 1, widths=(8, 8, 16), dropout=0.5)
    image = torch.randn(2, 3, 16, 16)
    assert torch.equal(net.eval().encode(image)[0], net.encode(image)[0])
    assert not torch.equal(net.train().encode(image)[0], net.encode(image)[0])


def test_the_condition_of_v1_is_gated_by_the_noisy_mask_and_its_time() -> None:
    model = randomised(build_model(small_network("medsegdiff-v1")))
    image, x_t = torch.randn(1, 3, 32, 32), torch.randn(1, 1, 32, 32)
    early, late = (model(image, x_t, torch.tensor([t]))[1] for t in (10.0, 900.0))
    assert not torch.allclose(early, late, atol=1e-6)


@pytest.mark.parametrize("steps", [1000, 100])
def test_the_anchor_of_v1_is_drawn_where_x_t_is_pure_noise(steps: int) -> None:
    """At the last step of the process, however many there are: later ones were never trained."""
    model = randomised(build_model(small_network("medsegdiff-v1", f"diffusion.num_train_timesteps={steps}")))
    image = torch.randn(1, 3, 32, 32)
    nothing = model(image, torch.zeros(1, 1, 32, 32), torch.tensor([steps - 1.0]))[1]
    assert torch.equal(nothing, model.condition(image).logits)


def test_the_anchors_of_the_release_are_detached() -> None:
    """The denoiser's loss does not reach the Condition Model."""
    model = randomised(build_model(small_network("release")))
    prediction, logits, *_ = model(torch.randn(1, 3, 32, 32), torch.randn(1, 1, 32, 32), torch.tensor([10.0]))
    prediction.square().sum().backward(retain_graph=True)
    assert all(p.grad is None for p in model.condition_model.parameters())
    logits.sum().backward()
    assert all(p.grad is not None for p in model.condition_model.parameters())


@pytest.mark.parametrize(
    ("name", "override", "words"),
    [
        ("medsegdiff-v1", "model.condition_widths=[8, 8, 8]", "multiples has one level more"),
        ("medsegdiff-v1", "model.filter_size=30", "filter_size must be a multiple of 4"),
        ("medsegdiff-v1", "model.num_heads=3", "num_heads must divide"),
        ("medsegdiff-v1", "model.attention_levels=[3]", "attention_levels must lie in 0 … 2"),
        ("release", "model.channels=24", r"anchors have 2 × 4 \+ 8 = 16 channels: set channels to it"),
        ("release", "model.multiples=[2, 2]", "let multiples begin with 1"),
    ],
)
def test_settings_that_do_not_fit_are_explained(name: str, override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        small_network(name, override)
