"""An ensemble drawn with a denoiser that knows the answer: whatever it predicts, the mask must come out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from medsegdiff.diffusion.schedule import Level, schedule_of
from medsegdiff.inference.ensemble import EnsembleSampler
from medsegdiff.models.base import DiffusionModel
from medsegdiff.types import Condition
from tests.makers import small_config


class Knows(DiffusionModel):
    """Predicts ε or v of a known mask from x_t, by the definition x_t = α x_0 + σ ε; perhaps a variance, too."""

    def __init__(
        self, mask: Tensor, target: str, level_at: object, *, coding: str = "signed", variance: float | None = None
    ) -> None:
        super().__init__(stride=1)
        self.x_0 = 2 * mask - 1 if coding == "signed" else mask
        self.target, self.level_at, self.variance = target, level_at, variance
        self.seen: list[Tensor] = []

    def condition(self, image: Tensor) -> Condition:
        return Condition(torch.zeros(len(image), 1, *image.shape[-2:]))

    def denoise(self, x_t: Tensor, time: Tensor, condition: Condition) -> Tensor:
        self.seen.append(x_t)
        level = self.level_at(float(time))
        noise = (x_t - level.alpha * self.x_0) / level.sigma
        said = noise if self.target == "eps" else level.alpha * noise - level.sigma * self.x_0
        return said if self.variance is None else torch.cat([said, torch.full_like(said, self.variance)], dim=1)


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
        "sampling.steps=12",
        "sampling.members=3",
    )
    noise_schedule = schedule_of(config.diffusion)
    model = Knows(mask, target, lambda t: Level.of(noise_schedule.lam_at(t)))
    drawn = EnsembleSampler(model, config, config.sampling, precision="fp32").draw(
        torch.randn(1, 1, 12, 12), ["a"], seed=0
    )
    assert drawn.probability.shape == (3, 1, 1, 12, 12)
    assert (drawn.probability - mask).abs().max() < 0.01


@pytest.mark.parametrize("coding", ["signed", "unit"])
@pytest.mark.parametrize("sampler", ["ddpm", "dpmpp-2m"])
def test_masks_coded_0_and_1_and_a_learned_variance_give_the_known_mask(sampler: str, coding: str) -> None:
    mask = (torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(0)) > 0.6).float()
    config = small_config(
        "diffusion.target=eps",
        "diffusion.schedule=linear",
        "diffusion.signal_scale=1.0",
        f"diffusion.coding={coding}",
        f"sampling.sampler={sampler}",
        "sampling.steps=12",
    )
    noise_schedule = schedule_of(config.diffusion)

    def drawn(variance: float | None) -> Tensor:
        model = Knows(mask, "eps", lambda t: Level.of(noise_schedule.lam_at(t)), coding=coding, variance=variance)
        sampler = EnsembleSampler(model, config, config.sampling, precision="fp32")
        return sampler.draw(torch.randn(1, 1, 12, 12), ["a"], seed=0).probability

    assert (drawn(None) - mask).abs().max() < 0.01
    assert (drawn(1.0) - mask).abs().max() < 0.01


def test_a_learned_variance_widens_the_noise_of_the_ancestral_sampler_alone() -> None:
    """Followed through the network: what it sees of x_t after a step changes with the variance it asks for."""
    config = small_config("diffusion.target=eps", "sampling.steps=3")
    noise_schedule = schedule_of(config.diffusion)

    def seen(sampler: str, variance: float | None) -> Tensor:
        model = Knows(torch.zeros(1, 1, 12, 12), "eps", lambda t: Level.of(noise_schedule.lam_at(t)), variance=variance)
        sampling = config.sampling.model_copy(update={"sampler": sampler, "members": 1})
        EnsembleSampler(model, config, sampling, precision="fp32").draw(torch.randn(1, 1, 12, 12), ["a"], seed=0)
        return torch.stack(model.seen)

    assert torch.allclose(seen("ddpm", None), seen("ddpm", -1.0), atol=1e-6)
    assert seen("ddpm", 1.0)[-1].std() > 1.5 * seen("ddpm", -1.0)[-1].std()
    assert torch.equal(seen("ddim", None), seen("ddim", 1.0))
