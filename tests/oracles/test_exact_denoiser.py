"""An ensemble drawn with a denoiser that knows the answer: whatever it predicts, the mask must come out."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from medsegdiff.diffusion.process import encode
from medsegdiff.diffusion.schedule import Level, schedule_of
from medsegdiff.inference.ensemble import EnsembleSampler
from medsegdiff.models.base import DiffusionModel
from medsegdiff.types import Condition
from tests.makers import small_config


class Knows(DiffusionModel):
    """Predicts ε or v of a known mask from x_t, by the definition x_t = α x_0 + σ ε."""

    def __init__(self, mask: Tensor, target: str, level_at: object) -> None:
        super().__init__(stride=1)
        self.x_0, self.target, self.level_at = encode(mask), target, level_at

    def condition(self, image: Tensor) -> Condition:
        return Condition(gates=(), embedding=image, logits=torch.zeros(len(image), 1, *image.shape[-2:]), image=None)

    def denoise(
        self, x_t: Tensor, t: Tensor, condition: Condition, *, filters: Sequence[Tensor] | None = None
    ) -> Tensor:
        level = self.level_at(float(t))
        noise = (x_t - level.alpha * self.x_0) / level.sigma
        return noise if self.target == "eps" else level.alpha * noise - level.sigma * self.x_0


@pytest.mark.parametrize("target", ["eps", "v"])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmpp-2m", "dpmpp-sde-2m"])
def test_the_known_mask_is_drawn_by_every_member(sampler: str, schedule: str, target: str) -> None:
    mask = (torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(0)) > 0.6).float()
    config = small_config(
        f"diffusion.target={target}",
        f"diffusion.schedule={schedule}",
        "diffusion.signal_scale=1.0",
        f"sampling.sampler={sampler}",
        "sampling.num_steps=12",
        "sampling.num_samples=3",
    )
    noise_schedule = schedule_of(config.diffusion)
    model = Knows(mask, target, lambda t: Level.of(noise_schedule.lam_at(t)))
    drawn = EnsembleSampler(model, config, config.sampling, precision="fp32").draw(
        torch.randn(1, 1, 12, 12), ["a"], seed=0
    )
    assert drawn.probability.shape == (3, 1, 1, 12, 12)
    assert (drawn.probability - mask).abs().max() < 0.01
