"""Equation 2: ε_θ(x_t, I, t) = D(TransF(E^I, E^x), t), with the condition computed once per image."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from medsegdiff.config.run import Config
from medsegdiff.models.base import DiffusionModel
from tests.makers import denoised, small_config


def inputs(size: tuple[int, int] = (32, 32), batch: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(batch, 3, *size, generator=generator)
    x_t = torch.randn(batch, 1, *size, generator=generator)
    return image, x_t, torch.tensor([10.0, 500.0, 990.0])[:batch]


def test_cached_condition_and_filters_equal_computing_everything_anew(model: DiffusionModel) -> None:
    image, x_t, t = inputs()
    anew = torch.cat([model(image[i : i + 1], x_t[i : i + 1], t[i : i + 1])[0] for i in range(3)])
    condition = model.condition(image)
    cached = torch.cat(
        [
            model.denoise(x_t[i : i + 1], model.at(t[i : i + 1], (32, 32)), condition.select(torch.tensor([i])))
            for i in range(3)
        ]
    )
    assert torch.allclose(cached, anew, atol=1e-5)


def test_one_time_serves_all_members_of_a_batch(model: DiffusionModel) -> None:
    image, x_t, t = inputs()
    condition = model.condition(image)
    one = denoised(model, x_t, t[:1], condition)
    each = denoised(model, x_t, t[:1].expand(3), condition)
    assert torch.allclose(one, each, atol=1e-5)


@pytest.mark.parametrize("field", ["gates", "semantics"])
def test_both_conditions_reach_the_prediction(model: DiffusionModel, field: str) -> None:
    image, x_t, t = inputs()
    condition = model.condition(image)
    other = model.condition(image.flip(0))
    mixed = replace(condition, **{field: getattr(other, field)})
    assert not torch.allclose(denoised(model, x_t, t, condition), denoised(model, x_t, t, mixed), atol=1e-5)


def test_time_reaches_the_prediction(model: DiffusionModel) -> None:
    image, x_t, t = inputs()
    condition = model.condition(image)
    now, then = (denoised(model, x_t, times, condition) for times in (t, t.flip(0)))
    assert not torch.allclose(now, then, atol=1e-4)


def test_diffusion_model_sees_the_mask_alone_unless_told_otherwise(config: Config) -> None:
    from medsegdiff.models.base import build_model

    assert build_model(config).diffusion_model.encoder.stem.in_channels == 1
    seeing = build_model(small_config("model.see_image=true"))
    assert seeing.diffusion_model.encoder.stem.in_channels == 4
    image, x_t, t = inputs()
    assert seeing(image, x_t, t)[0].shape == x_t.shape


def test_gradients_of_the_diffusion_flow_through_the_anchor_into_the_condition_model(model: DiffusionModel) -> None:
    image, x_t, t = inputs()
    prediction, *_ = model(image, x_t, t)
    prediction.square().mean().backward()
    decoder = list(model.condition_model.decoder.parameters())  # only the gates lead to it: c⁰ comes before it
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in decoder)


def test_a_batch_equals_its_elements(model: DiffusionModel) -> None:
    image, x_t, t = inputs()
    together, logits, *_ = model(image, x_t, t)
    alone = [model(image[i : i + 1], x_t[i : i + 1], t[i : i + 1]) for i in range(3)]
    assert torch.allclose(together, torch.cat([said.prediction for said in alone]), atol=1e-5)
    assert torch.allclose(logits, torch.cat([said.logits for said in alone]), atol=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (16, 48), (64, 20)])
def test_any_multiple_of_the_stride_will_do(model: DiffusionModel, size: tuple[int, int]) -> None:
    image, x_t, t = inputs(size)
    assert model(image, x_t, t)[0].shape == x_t.shape
