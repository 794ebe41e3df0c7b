"""Gradient checkpointing: the same gradients, and less that is kept for them."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch

from medsegdiff.config.run import Config
from medsegdiff.models.base import DiffusionModel, build_model
from medsegdiff.nn import blocks
from medsegdiff.nn.blocks import ResidualBlock, recompute
from medsegdiff.training.memory import saved_bytes, step_memory
from tests.makers import randomised, small_config, small_network

ABOUT = ("data.channels=3", "data.task=binary", "data.classes=[lesion]")


def gradients(model: DiffusionModel, config: Config, *, precision: str = "fp32") -> list[torch.Tensor]:
    """Those of a loss on noise, of every parameter."""
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(2, config.image_channels, 32, 32, generator=generator)
    x_t = torch.randn(2, config.mask_channels, 32, 32, generator=generator)
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        prediction, logits = model(image, x_t, torch.tensor([3.0, 700.0]))
    (prediction.float().square().mean() + logits.float().square().mean()).backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["medsegdiff-v2", "medsegdiff-v1", "release"])
def test_gradients_are_the_same(name: str, precision: str) -> None:
    config = small_network(name, *ABOUT)
    plain = randomised(build_model(config))
    saving = deepcopy(plain)
    recompute(saving)
    expected, found = (gradients(model, config, precision=precision) for model in (plain, saving))
    assert len(expected) == len(found) > 50
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=1e-6)


def test_each_block_is_computed_twice_in_training_and_once_in_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config(*ABOUT)
    model = build_model(config)
    recompute(model)
    runs: list[ResidualBlock] = []
    computed: Callable[..., torch.Tensor] = ResidualBlock._computed

    def noted(block: ResidualBlock, *arguments: torch.Tensor | None) -> torch.Tensor:
        runs.append(block)
        return computed(block, *arguments)

    monkeypatch.setattr(blocks.ResidualBlock, "_computed", noted)
    number = sum(isinstance(module, ResidualBlock) for module in model.modules())
    gradients(model, config)
    assert len(runs) == 2 * number
    runs.clear()
    with torch.no_grad():
        model(torch.zeros(1, 3, 32, 32), torch.zeros(1, 1, 32, 32), torch.zeros(1))
    assert len(runs) == number


def test_far_less_is_kept_and_the_estimate_knows_it() -> None:
    """Byte for byte: what is counted without computing is what a real pass keeps."""
    plain, saving = (small_config(*ABOUT, f"train.gradient_checkpointing={flag}") for flag in ("false", "true"))
    model = build_model(saving)
    keeps_all = saved_bytes(model, saving, 2, 32, precision="fp32")
    recompute(model)
    with torch.device("meta"):
        imagined = build_model(saving)
    recompute(imagined)
    kept = saved_bytes(model, saving, 2, 32, precision="fp32")
    assert kept < 0.6 * keeps_all
    assert saved_bytes(imagined, saving, 2, 32, precision="fp32") == pytest.approx(kept, rel=0.002)
    estimates = [step_memory(config, precision="fp32").per_image for config in (plain, saving)]
    assert estimates[1] < 0.6 * estimates[0]
