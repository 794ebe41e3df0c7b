"""Table 4: what is left of the network in each row of the ablation."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from medsegdiff.config.run import Config
from medsegdiff.data.loader import as_batch
from medsegdiff.errors import ConfigError
from medsegdiff.models.base import build_model
from medsegdiff.nn.nbp_filter import softmax_affinity
from medsegdiff.nn.ss_former import SpectrumAttention, SSFormer
from medsegdiff.nn.transformer import SpatialAttention
from medsegdiff.paper.ablation_plan import VARIANTS, Variant
from tests.makers import losses_of, randomised, small_config

TICKED = {
    "Baseline": set(),
    "SA": {"SA"},
    "U-SA": {"U-SA"},
    "U-SA+SS-Former": {"U-SA", "SS-Former"},
    "MedSegDiff-V2": {"U-SA", "SS-Former", "NBP-Filter"},
    "U-SA+cross-attention": {"U-SA", "SS-Former"},
    "SS-Former alone": {"SS-Former", "NBP-Filter"},
    "MedSegDiff-V2+image": {"U-SA", "SS-Former", "NBP-Filter"},
    "MedSegDiff-V2+sum": {"U-SA", "SS-Former", "NBP-Filter"},
}


def configured(variant: Variant, *overrides: str) -> Config:
    return small_config("data.channels=1", "data.task=binary", "data.classes=[a]", *variant.changes, *overrides)


@pytest.fixture(params=VARIANTS, ids=lambda variant: variant.name)
def variant(request: pytest.FixtureRequest) -> Variant:
    return request.param


def test_a_row_holds_the_parts_that_the_paper_ticks_and_no_other(variant: Variant) -> None:
    former, anchor = "diffusion_model.ss_former.", "diffusion_model.anchors.0."
    names = [name for name, _ in build_model(configured(variant)).named_parameters()]
    found = {
        "U-SA": f"{anchor}sigma" in names,
        "SA": f"{anchor}to_map.weight" in names and f"{anchor}sigma" not in names,
        "SS-Former": any(name.startswith(f"{former}blocks") for name in names),
        "NBP-Filter": any(name.startswith(f"{former}filters") for name in names),
    }
    assert {part for part, there in found.items() if there} == TICKED[variant.name]
    assert any(name.startswith(former) for name in names) == ("SS-Former" in TICKED[variant.name])
    assert any(name.startswith("diffusion_model.anchors") for name in names) == bool(
        {"SA", "U-SA"} & TICKED[variant.name]
    )


def test_gradients_reach_all_parameters_of_each_row(variant: Variant) -> None:
    config = configured(variant)
    model = randomised(build_model(config))
    mask = (torch.rand(2, 1, 32, 32) > 0.5).float()
    batch = as_batch({"image": torch.randn(2, 1, 32, 32), "mask": mask, "positions": (0, 1)})
    losses_of(model, batch, config, signal_scale=0.3).total.backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert without == []


def test_what_is_kept_of_image_and_time_serves_every_step_in_each_row(variant: Variant) -> None:
    """Rows without filters or without an SS-Former must not trip over what samplers keep."""
    model = randomised(build_model(configured(variant)))
    image, x_t, t = torch.randn(1, 1, 32, 32), torch.randn(1, 1, 32, 32), torch.tensor([300.0])
    condition, time = model.condition(image), model.at(t, (32, 32))
    kept = model.denoise(x_t, time, condition.expand(0, 1))
    assert torch.allclose(kept, model(image, x_t, t)[0], atol=1e-5)
    assert not torch.allclose(kept, model.denoise(x_t, time, model.condition(-image)), atol=1e-5)


def test_the_names_of_the_whole_network_are_those_of_a_network_without_the_settings() -> None:
    """Checkpoints that know nothing of ablations load."""
    config = configured(VARIANTS[4])
    old = {k: v for k, v in config.model_dump(mode="json")["model"].items() if not k.endswith("_condition")}
    assert Config.model_validate({"model": old}).model == config.model
    former = "diffusion_model.ss_former."
    names = set(build_model(config).state_dict())
    assert {f"{former}filters.0.head.bias", f"{former}blocks.0.encode_noise.to_q.weight"} <= names
    assert "diffusion_model.anchors.0.sigma" in names


def test_a_diffusion_model_that_knows_nothing_of_the_image_is_refused() -> None:
    blind = ("model.anchor_condition=none", "model.semantic_condition=none")
    with pytest.raises(ConfigError, match="knows nothing of the image; set see_image to true"):
        small_config(*blind)
    with pytest.raises(ConfigError, match="knows nothing of the image"):
        small_config("model.anchor_levels=[]", "model.semantic_condition=none")
    assert small_config(*blind, "model.see_image=true").model.see_image


def test_without_filters_the_ss_former_is_that_with_open_ones() -> None:
    torch.manual_seed(0)
    options = {"time_dim": 16, "dim": 8, "num_blocks": 2, "filter_channels": 4, "filter_blocks": 2}
    bare = SSFormer(6, 10, filtered=False, **options)
    whole = SSFormer(6, 10, **options)
    for parameter in bare.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    assert whole.load_state_dict(bare.state_dict(), strict=False).unexpected_keys == []
    for nbp in whole.filters:
        torch.nn.init.zeros_(nbp.head.weight)
        torch.nn.init.constant_(nbp.head.bias, 100.0)  # H ≡ 1
    e, c, time = torch.randn(2, 10, 4, 6), torch.randn(2, 6, 4, 6), torch.randn(2, 16)
    assert bare.tabulate(time, 4, 6) == []
    assert torch.allclose(
        bare(e, bare.encode_image(c), []), whole(e, whole.encode_image(c), whole.tabulate(time, 4, 6)), atol=1e-5
    )


def test_without_a_filter_a_module_is_softmax_free_attention() -> None:
    torch.manual_seed(0)
    attention = SpectrumAttention(8)
    query, source = torch.randn(2, 12, 8), torch.randn(2, 12, 8)
    q, k = attention.to_q(attention.norm_q(query)), attention.to_k(attention.norm_k(source))
    expected = (q @ k.transpose(1, 2)) @ attention.to_v(source) / math.sqrt(8 * 12)
    assert torch.allclose(
        attention.attend(query, attention.keys_values(source), None, grid=(3, 4)), expected, atol=1e-6
    )


def test_the_control_is_pytorch_s_attention() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 12, 8)
    assert torch.allclose(softmax_affinity(q, k) @ v, F.scaled_dot_product_attention(q, k, v), atol=1e-6)
    attention = SpectrumAttention(8, weigh=softmax_affinity)
    norm_q, norm_k = attention.norm_q(q), attention.norm_k(k)
    expected = F.scaled_dot_product_attention(attention.to_q(norm_q), attention.to_k(norm_k), attention.to_v(k))
    assert torch.allclose(attention.attend(q, attention.keys_values(k), None, grid=(3, 4)), expected, atol=1e-6)


def test_spatial_attention_is_the_formula_at_one_place() -> None:
    torch.manual_seed(0)
    attention = SpatialAttention()
    f_c = torch.randn(1, 5, 9, 11)
    window = F.pad(f_c, (3, 3, 3, 3))[0, :, 2:9, 4:11]  # around row 2, column 4
    window = torch.stack([window.mean(dim=0), window.max(dim=0).values])
    weight, bias = attention.to_map.weight[0], attention.to_map.bias[0]
    assert torch.allclose(attention(f_c)[0, 0, 2, 4], torch.sigmoid((window * weight).sum() + bias), atol=1e-6)
