"""Samplers on Gaussian data, whose flow is known: x_0 ~ N(0, s²) has E[x_0 | x_t] = α s² / (α² s² + σ²) x_t."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from medsegdiff.diffusion.samplers import SAMPLERS, sample
from medsegdiff.diffusion.schedule import Level, NoiseSchedule, make_schedule
from medsegdiff.diffusion.spacing import COVERING, make_table

STD = 0.5


def ideal(schedule: NoiseSchedule, std: float = STD):
    def denoise(x: torch.Tensor, t: float) -> torch.Tensor:
        level = Level.of(schedule.lam_at(t))
        return level.alpha * std**2 / (level.alpha**2 * std**2 + level.sigma**2) * x

    return denoise


def slope_of_error(sampler: str, steps: list[int]) -> float:
    """Fit the order: how fast the error of the deterministic flow falls with the number of steps.

    The flow keeps x / √(α² s² + σ²) constant, so the exact end of every path is known. The last step, which
    jumps from a finite λ to clean data, is of order 1 for all samplers and left out: the walk ends at λ = 2.
    """
    schedule = make_schedule("cosine", num_train_timesteps=1000)
    errors = []
    for count in steps:
        lams = np.linspace(-4, 2, count + 1)
        times = [schedule.t_of(lam) for lam in lams]
        table = SAMPLERS[sampler].factory(schedule, times)[:-1]
        start, end = Level.of(schedule.lam_at(times[0])), Level.of(schedule.lam_at(times[-1]))

        def spread(level: Level) -> float:
            return math.sqrt(level.alpha**2 * STD**2 + level.sigma**2)

        x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
        got = sample(ideal(schedule), x, table).item()
        errors.append(abs(got - spread(end) / spread(start)))
    return float(-np.polyfit(np.log(steps), np.log(errors), 1)[0])


@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("dpmpp-1", 1), ("dpmpp-2m", 2)])
def test_error_falls_with_the_order_of_the_sampler(sampler: str, order: int) -> None:
    assert slope_of_error(sampler, [80, 160, 320, 640]) == pytest.approx(order, abs=0.05)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmpp-1", "dpmpp-2m", "dpmpp-sde-2m"])
@pytest.mark.parametrize("spacing", COVERING)
def test_samples_have_the_spread_of_the_data(sampler: str, spacing: str) -> None:
    schedule, generator = make_schedule("cosine"), torch.Generator().manual_seed(0)
    x = torch.randn(20_000, 1, 1, 1, dtype=torch.float64, generator=generator)
    table = make_table(sampler, schedule, num_steps=200, spacing=spacing, eta=0.0)
    got = sample(ideal(schedule), x, table, noise=lambda: torch.randn(x.shape, dtype=x.dtype, generator=generator))
    assert float(got.std()) == pytest.approx(STD, rel=0.04)


def test_spread_of_few_steps_is_as_documented() -> None:
    """Why log-SNR spacing is the default: .27/.40/.48 with linspace, .40/.515/.507 with log-SNR (linear schedule)."""
    schedule = make_schedule("linear")
    x = torch.tensor([1.0], dtype=torch.float64).reshape(1, 1, 1, 1)
    spreads = {
        spacing: [
            float(sample(ideal(schedule), x, make_table("dpmpp-2m", schedule, num_steps=n, spacing=spacing)))
            for n in (5, 10, 20)
        ]
        for spacing in ("linspace", "logsnr")
    }
    assert spreads["linspace"] == pytest.approx([0.27, 0.40, 0.48], abs=0.01)
    assert spreads["logsnr"] == pytest.approx([0.40, 0.515, 0.507], abs=0.01)


def test_respaced_ddpm_is_exact_for_gaussian_marginals_where_a_shortened_one_collapses() -> None:
    """Ten steps through the posterior of the steps taken, against ten rows picked from the full table."""
    schedule, generator = make_schedule("cosine"), torch.Generator().manual_seed(0)
    x = torch.randn(20_000, 1, 1, 1, dtype=torch.float64, generator=generator)

    def noise() -> torch.Tensor:
        return torch.randn(x.shape, dtype=x.dtype, generator=generator)

    full = make_table("ddpm", schedule, num_steps=1000, spacing="trailing")
    shortened = sample(ideal(schedule), x, full[::100], noise=noise)
    respaced = sample(ideal(schedule), x, make_table("ddpm", schedule, num_steps=10, spacing="trailing"), noise=noise)
    assert abs(float(respaced.std()) - STD) < 0.15
    assert abs(float(shortened.std()) - STD) > 0.3


def test_zero_terminal_snr_can_be_sampled() -> None:
    schedule = make_schedule("cosine", zero_terminal_snr=True)
    x = torch.randn(20_000, 1, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for sampler in ("ddim", "dpmpp-2m"):
        got = sample(ideal(schedule), x, make_table(sampler, schedule, num_steps=100))
        assert float(got.std()) == pytest.approx(STD, rel=0.05)
