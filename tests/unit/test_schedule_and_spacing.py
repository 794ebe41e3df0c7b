from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from medsegdiff.diffusion.process import TARGETS, add_noise, decode, encode, levels_at, predicted_x_0
from medsegdiff.diffusion.samplers import sample
from medsegdiff.diffusion.schedule import Level, make_schedule, scale_signal
from medsegdiff.diffusion.spacing import SPACINGS, make_table
from medsegdiff.errors import ConfigError


@pytest.mark.parametrize("name", ["linear", "cosine"])
@pytest.mark.parametrize("length", [100, 1000])
def test_signal_falls_from_almost_all_to_almost_none(name: str, length: int) -> None:
    alpha_bar = make_schedule(name, num_train_timesteps=length).alpha_bar
    assert len(alpha_bar) == length
    assert (alpha_bar.diff() < 0).all()
    assert alpha_bar[0] > 0.99
    assert alpha_bar[-1] < 0.01


def test_linear_schedule_is_that_of_ho_et_al() -> None:
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    assert torch.allclose(make_schedule("linear").alpha_bar, torch.cumprod(1 - beta, 0))


def test_signal_scale_is_masks_coded_minus_b_and_b() -> None:
    """x = √ᾱ (b x_0) + √(1−ᾱ) ε, divided by its standard deviation, has the power that the formula says."""
    alpha_bar, b = make_schedule("cosine").alpha_bar, 0.3
    signal, noise = alpha_bar * b**2, 1 - alpha_bar
    assert torch.allclose(scale_signal(alpha_bar, b), signal / (signal + noise))
    assert torch.allclose(scale_signal(alpha_bar, 1.0), alpha_bar)


def test_zero_terminal_snr_keeps_the_first_step_and_empties_the_last() -> None:
    plain, zero = make_schedule("cosine"), make_schedule("cosine", zero_terminal_snr=True)
    assert zero.alpha_bar[-1] == 0
    assert torch.isclose(zero.alpha_bar[0], plain.alpha_bar[0])


def test_levels_are_stable_at_both_ends() -> None:
    for lam in (-math.inf, -40.0, -1.0, 0.0, 1.0, 40.0, math.inf):
        level = Level.of(lam)
        assert level.alpha**2 + level.sigma**2 == pytest.approx(1)
    assert Level.of(20.0).sigma == pytest.approx(math.exp(-20), rel=1e-9)
    assert (Level.of(math.inf).sigma, Level.of(-math.inf).alpha) == (0, 0)


@pytest.mark.parametrize("t", [0.0, 0.4, 1.0, 250.7, 998.5, 999.0])
def test_time_and_lambda_are_inverse(t: float) -> None:
    schedule = make_schedule("cosine")
    assert schedule.t_of(schedule.lam_at(t)) == pytest.approx(t, abs=1e-6)


@pytest.mark.parametrize("name", list(SPACINGS))
@pytest.mark.parametrize("steps", [1, 2, 20, 999, 1000])
@pytest.mark.parametrize("zero", [False, True])
def test_spacings_fall_from_the_last_step_and_have_no_double(name: str, steps: int, zero: bool) -> None:
    schedule = make_schedule("cosine", zero_terminal_snr=zero)
    times = SPACINGS[name](schedule, steps)
    assert len(times) == steps
    assert times[0] == 999
    assert all(a > b >= 0 for a, b in pairwise(times))


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmpp-1", "dpmpp-2m", "dpmpp-sde-2m"])
@pytest.mark.parametrize("spacing", list(SPACINGS))
@pytest.mark.parametrize("steps", [1, 2, 7, 100])
@pytest.mark.parametrize("zero", [False, True])
def test_every_table_is_finite_and_ends_on_the_prediction(sampler: str, spacing: str, steps: int, zero: bool) -> None:
    """Where the network always says c, the walk ends on c: the last row is the prediction alone."""
    schedule = make_schedule("cosine", num_train_timesteps=100, zero_terminal_snr=zero)
    table = make_table(sampler, schedule, num_steps=steps, spacing=spacing)
    start = torch.randn(1, 1, 2, 2, dtype=torch.float64)
    said = sample(lambda x, t: torch.full_like(x, 0.7), start, table, noise=lambda: torch.zeros_like(start))
    assert torch.allclose(said, torch.full_like(start, 0.7), atol=1e-9)


def test_two_steps_spaced_in_log_snr_are_the_two_ends() -> None:
    for zero in (False, True):
        assert SPACINGS["logsnr"](make_schedule("cosine", zero_terminal_snr=zero), 2) == [999, 0]


def test_a_step_count_that_is_impossible_says_what_is_possible() -> None:
    for steps in (0, 1001):
        with pytest.raises(ConfigError, match="1 … 1000"):
            make_table("ddim", make_schedule("cosine"), num_steps=steps)


def test_unknown_names_suggest_the_nearest() -> None:
    schedule = make_schedule("cosine")
    with pytest.raises(ConfigError, match="Did you mean 'dpmpp-2m'"):
        make_table("dpm++2m", schedule, num_steps=5)
    with pytest.raises(ConfigError, match="Did you mean 'logsnr'"):
        make_table("ddim", schedule, num_steps=5, spacing="log-snr")
    with pytest.raises(ConfigError, match="Did you mean 'cosine'"):
        make_schedule("cosin")


def test_only_ddim_has_eta() -> None:
    schedule = make_schedule("cosine")
    assert any(row.noise for row in make_table("ddim", schedule, num_steps=5, eta=0.5))
    with pytest.raises(ConfigError, match="only the sampler ddim has it"):
        make_table("dpmpp-2m", schedule, num_steps=5, eta=0.5)


def test_a_sampler_that_needs_noise_says_so() -> None:
    table = make_table("ddpm", make_schedule("cosine"), num_steps=5)
    with pytest.raises(ValueError, match="noise="):
        sample(lambda x, t: x, torch.zeros(1, 1, 2, 2), table)


@pytest.mark.parametrize("target", ["eps", "v"])
def test_noise_and_x_0_cancel(target: str) -> None:
    schedule, t = make_schedule("linear"), torch.tensor([0, 400, 999])
    x_0, noise = torch.randn(2, 3, 1, 4, 4, dtype=torch.float64)
    alpha, sigma = levels_at(schedule.alpha_bar, t, x_0)
    x_t = add_noise(x_0, noise, alpha, sigma)
    said = TARGETS[target].of(x_0, noise, alpha, sigma)
    assert torch.allclose(TARGETS[target].to_x_0(said, x_t, alpha, sigma), x_0, atol=1e-10)


def test_masks_are_coded_and_decoded() -> None:
    mask = (torch.rand(2, 3, 4, 4) > 0.5).float()
    assert set(encode(mask).unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(decode(encode(mask)), mask)
    assert torch.equal(encode(mask, coding="unit"), mask)
    assert torch.equal(decode(mask - 0.2, coding="unit"), (mask - 0.2).clamp(min=0))
    logits = torch.randn(2, 3, 4, 4)
    x_0 = predicted_x_0(logits, mask, 0.5, 0.5, target="x0", exclusive=False, clip=True, coding="unit")
    assert torch.allclose(x_0, logits.sigmoid())


def test_logits_become_x_0() -> None:
    logits, x_t = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    options = {"target": "x0", "clip": True}
    apart = predicted_x_0(logits, x_t, 0.5, 0.5, exclusive=False, **options)
    assert torch.allclose(apart, torch.tanh(logits / 2), atol=1e-6)
    classes = predicted_x_0(logits, x_t, 0.5, 0.5, exclusive=True, **options)
    assert torch.allclose(decode(classes).sum(dim=1), torch.ones(2, 4, 4), atol=1e-6)
    wild = predicted_x_0(100 * logits, x_t, 0.1, 1.0, target="eps", exclusive=False, clip=True)
    assert wild.abs().max() == 1
