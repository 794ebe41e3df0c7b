"""The exact denoisers that samplers are tried with, against posteriors that are integrated or summed here."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from medsegdiff.diffusion.samplers import Row, sample
from medsegdiff.diffusion.schedule import Level, make_schedule
from medsegdiff.diffusion.spacing import COVERING, make_table
from tests.oracles.exact import (
    gaussian_denoiser,
    gaussian_spread,
    one_hot_logits,
    order_of,
    sampled_spread,
    two_point_logits,
)

LEVELS = [Level.of(lam) for lam in (-2.0, 0.0, 1.0)]


def likelihood(x_t: float, x_0: np.ndarray, level: Level) -> np.ndarray:
    return np.exp(-((x_t - level.alpha * x_0) ** 2) / (2 * level.sigma**2))


@pytest.mark.parametrize("std", [0.3, 1.5])
def test_gaussian_denoiser_is_the_integral_of_bayes(std: float) -> None:
    schedule, x_0 = make_schedule("cosine"), np.linspace(-15, 15, 200_001)
    for t in (100.0, 500.0, 800.0):
        level = Level.of(schedule.lam_at(t))
        weight = np.exp(-(x_0**2) / (2 * std**2)) * likelihood(0.7, x_0, level)
        got = gaussian_denoiser(schedule, std)(torch.full((1, 1, 1, 1), 0.7, dtype=torch.float64), t)
        assert got.item() == pytest.approx((x_0 * weight).sum() / weight.sum(), rel=1e-6)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_two_point_logits_are_bayes_rule(level: Level, p: float) -> None:
    for x_t in (-1.3, 0.0, 0.8):
        background, foreground = np.array([1 - p, p]) * likelihood(x_t, np.array([-1.0, 1.0]), level)
        got = two_point_logits(torch.full((1, 1, 1, 1), x_t, dtype=torch.float64), level, p).sigmoid()
        assert got.item() == pytest.approx(foreground / (background + foreground), rel=1e-9)


@pytest.mark.parametrize("level", LEVELS)
def test_one_hot_logits_are_bayes_rule_over_three_classes(level: Level) -> None:
    x_t, prior = np.array([0.4, -0.2, 0.9]), [0.5, 0.2, 0.3]
    codes = 2 * np.eye(3) - 1
    posterior = np.array(prior) * np.array([likelihood_of(x_t, code, level) for code in codes])
    got = one_hot_logits(torch.tensor(x_t).reshape(1, 3, 1, 1), level, prior).softmax(dim=1).flatten()
    assert got.numpy() == pytest.approx(posterior / posterior.sum(), rel=1e-9)


def likelihood_of(x_t: np.ndarray, code: np.ndarray, level: Level) -> float:
    return float(np.prod([likelihood(x, np.array(c), level) for x, c in zip(x_t, code, strict=True)]))


@pytest.mark.parametrize("sampler", ["ddpm", "dpmpp-2m", "dpmpp-sde-2m"])
def test_sampled_spread_is_the_spread_of_samples(sampler: str) -> None:
    schedule, generator = make_schedule("cosine", signal_scale=0.3), torch.Generator().manual_seed(0)
    table = make_table(sampler, schedule, num_steps=12)

    def noise() -> torch.Tensor:
        return torch.randn(100_000, 1, 1, 1, dtype=torch.float64, generator=generator)

    drawn = sample(gaussian_denoiser(schedule, 0.5), 1.3 * noise(), table, noise=noise)
    assert sampled_spread(schedule, table, std=0.5, start=1.3) == pytest.approx(float(drawn.std()), rel=0.01)


def test_variance_preserving_noise_keeps_unit_data_as_they_are() -> None:
    schedule = make_schedule("linear")
    assert [gaussian_spread(level, 1.0) for level in LEVELS] == pytest.approx([1, 1, 1])
    assert sampled_spread(schedule, make_table("dpmpp-2m", schedule, num_steps=400), std=1.0) == pytest.approx(
        1, abs=1e-3
    )


@pytest.mark.parametrize(("sampler", "order"), [("ddpm", 1), ("ddim", 1), ("dpmpp-2m", 2), ("dpmpp-sde-2m", 2)])
@pytest.mark.parametrize("spacing", COVERING)
@pytest.mark.parametrize("schedule_name", ["linear", "cosine"])
def test_order_of_every_sampler_spacing_and_schedule(
    sampler: str, order: int, spacing: str, schedule_name: str
) -> None:
    schedule = make_schedule(schedule_name, signal_scale=0.1)
    tables = [make_table(sampler, schedule, num_steps=count, spacing=spacing) for count in (50, 100, 200)]
    assert order_of(schedule, tables) == pytest.approx(order, abs=0.12)


def test_a_step_that_forgets_what_it_remembered_has_order_one() -> None:
    schedule = make_schedule("cosine", signal_scale=0.3)
    tables = [make_table("dpmpp-2m", schedule, num_steps=count) for count in (50, 100, 200)]
    forgetful = [tuple(Row(r.t, r.x, r.x_0 + r.previous, 0.0, r.noise) for r in table) for table in tables]
    assert order_of(schedule, forgetful) == pytest.approx(1, abs=0.1)
    assert math.isfinite(order_of(schedule, forgetful))
