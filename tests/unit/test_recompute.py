"""Gradient checkpointing: the same gradients, and less that is kept for them."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch

from medsegdiff.config.load import make_config
from medsegdiff.config.run import Config
from medsegdiff.models.base import MODELS, DiffusionModel, build_model
from medsegdiff.nn import blocks
from medsegdiff.nn.blocks import ResidualBlock, recompute
from medsegdiff.nn.guided_unet import UNetBlock
from medsegdiff.training.memory import saved_bytes, step_memory
from tests.makers import fitting, randomised, small_config, small_network

ABOUT = ("data.channels=3", "data.task=binary", "data.classes=[lesion]")


def gradients(model: DiffusionModel, config: Config, *, precision: str = "fp32") -> list[torch.Tensor]:
    """Those of a loss on noise, of every parameter."""
    generator = torch.Generator().manual_seed(1)
    h, w = fitting(model, 32, 32)
    image = torch.randn(2, config.image_channels, h, w, generator=generator)
    x_t = torch.randn(2, config.mask_channels, h, w, generator=generator)
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        prediction, logits, *_ = model(image, x_t, torch.tensor([3.0, 700.0]))
    sum(said.float().square().mean() for said in (prediction, logits) if said is not None).backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", [entry.name for entry in MODELS])
def test_gradients_are_the_same(name: str, precision: str) -> None:
    config = small_network(name, *ABOUT)
    plain = randomised(build_model(config))
    saving = deepcopy(plain)
    recompute(saving)
    expected, found = (gradients(model, config, precision=precision) for model in (plain, saving))
    assert len(expected) == len(found) > 30
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=1e-6)


def test_each_block_is_computed_twice_in_training_and_once_in_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config(*ABOUT)
    model = build_model(config)
    recompute(model)
    runs: list[ResidualBlock] = []
    computed: Callable[..., torch.Tensor] = ResidualBlock.compute

    def noted(block: ResidualBlock, *arguments: torch.Tensor | None) -> torch.Tensor:
        runs.append(block)
        return computed(block, *arguments)

    monkeypatch.setattr(blocks.ResidualBlock, "compute", noted)
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


def test_attention_is_computed_anew_with_the_block_that_it_follows() -> None:
    """What enters a block is kept and nothing within it, attention included; the estimate goes by the same switch."""
    about = (*ABOUT, "model.num_blocks=3", "model.channels=16", "model.attention_levels=[0, 1]", "model.num_heads=2")
    plain, saving = (small_network("ensdiff", *about, f"train.gradient_checkpointing={on}") for on in ("false", "true"))
    model = randomised(build_model(plain))
    keeps_all = saved_bytes(model, plain, 2, 32, precision="fp32")
    recompute(model)
    kept = saved_bytes(model, saving, 2, 32, precision="fp32")
    skips = 4 * (16 * 32 * 32 + 32 * 16 * 16)  # what enters the blocks, at least: features of both levels
    assert 2 * skips < kept < 0.15 * keeps_all
    estimates = [step_memory(config, precision="fp32").per_image for config in (plain, saving)]
    assert estimates[1] < 0.15 * estimates[0]


def test_of_blocks_within_blocks_the_outer_ones_are_computed_anew() -> None:
    model = build_model(small_network("ensdiff", *ABOUT))
    recompute(model)
    blocks_of = {
        kind: [m.recomputed for m in model.modules() if type(m) is kind] for kind in (UNetBlock, ResidualBlock)
    }
    assert all(blocks_of[UNetBlock])
    assert not any(blocks_of[ResidualBlock])
    assert len(blocks_of[UNetBlock]) == len(blocks_of[ResidualBlock])


@pytest.mark.parametrize(("before", "since"), [(True, False), (True, None), (False, True)])
def test_the_switch_of_earlier_versions_is_understood(before: bool, since: bool | None) -> None:
    """Networks derived from guided diffusion had one of their own; either was enough."""
    train = {} if since is None else {"gradient_checkpointing": since}
    config = make_config({"model": {"name": "ensdiff", "checkpointing": before}, "train": train})
    assert config.train.gradient_checkpointing
    assert not make_config({"model": {"name": "ensdiff", "checkpointing": False}}).train.gradient_checkpointing
