"""A pixel that is foreground with probability p: the ideal denoiser is tanh(α x_t / σ² + ½ logit p).

A right sampler must give foreground in a share p of its samples.
"""

from __future__ import annotations

import math

import pytest
import torch

from medsegdiff.diffusion.samplers import sample
from medsegdiff.diffusion.schedule import Level, make_schedule
from medsegdiff.diffusion.spacing import make_table


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("sampler", ["dpmpp-2m", "ddpm", "dpmpp-sde-2m"])
@pytest.mark.parametrize("signal_scale", [1.0, 0.3])
def test_share_of_foreground_samples_is_p(sampler: str, p: float, signal_scale: float) -> None:
    schedule = make_schedule("cosine", signal_scale=signal_scale)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40_000, 1, 1, 1, dtype=torch.float64, generator=generator)

    def denoise(x_t: torch.Tensor, t: float) -> torch.Tensor:
        level = Level.of(schedule.lam_at(t))
        return torch.tanh(level.alpha * x_t / level.sigma**2 + 0.5 * math.log(p / (1 - p)))

    table = make_table(sampler, schedule, num_steps=20 if sampler == "dpmpp-2m" else 200)
    x_0 = sample(denoise, x, table, noise=lambda: torch.randn(x.shape, dtype=x.dtype, generator=generator))
    assert float((x_0 > 0).double().mean()) == pytest.approx(p, abs=0.015)
    assert float(x_0.abs().mean()) > 0.98  # decided, not grey
