from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from medsegdiff.diffusion.process import Process
from medsegdiff.diffusion.samplers import sample
from medsegdiff.diffusion.schedule import Level, make_schedule, scale_signal
from medsegdiff.diffusion.spacing import SPACINGS, make_table
from medsegdiff.diffusion.target import MaskTarget, NoiseTarget, Target, VelocityTarget, decode, encode
from medsegdiff.errors import ConfigError
from medsegdiff.labels import Labels
from tests.makers import small_config


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


LINEAR, HALF = make_schedule("linear"), Level.of(0.0)


@pytest.mark.parametrize("target", [NoiseTarget(), VelocityTarget()])
def test_noise_and_x_0_cancel(target: Target) -> None:
    process = Process(LINEAR, target, Labels())
    mask, noise = torch.randn(2, 3, 1, 4, 4, dtype=torch.float64)
    noised = process.noisy(mask, torch.tensor([0, 400, 999]), noise)
    assert torch.allclose(target.x_0(target.truth(noised), noised.x_t, noised), 2 * mask - 1, atol=1e-10)


@pytest.mark.parametrize("coding", ["signed", "unit"])
@pytest.mark.parametrize("name", ["eps", "v", "x0"])
def test_what_a_network_is_asked_for_is_what_is_read_from_it_and_has_no_loss(name: str, coding: str) -> None:
    """The same x_0 in training, where α and σ are tensors, and in sampling, where they are numbers."""
    process = Process.of(small_config(f"diffusion.target={name}", f"diffusion.coding={coding}", "data.task=binary"))
    mask = (torch.rand(1, 1, 8, 8) > 0.5).float()
    noised = process.noisy(mask, torch.tensor([300]), torch.randn(1, 1, 8, 8))
    said = 40 * (2 * mask - 1) if name == "x0" else process.target.truth(noised)
    level = Level.of(process.schedule.lam_at(300.0))
    assert process.loss(said, noised).item() == pytest.approx(0, abs=1e-5)
    assert process.loss(said + 1 - 2 * mask, noised).item() > process.loss(said, noised).item()
    read = process.denoised(said, noised.x_t, level)
    assert torch.allclose(process.probability(read.x_0), mask, atol=1e-5)
    assert read.share is None
    assert torch.allclose(process.denoised(torch.cat([said, said], dim=1), noised.x_t, level).share, (said + 1) / 2)


def test_masks_are_coded_and_decoded() -> None:
    mask = (torch.rand(2, 3, 4, 4) > 0.5).float()
    assert set(encode(mask).unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(decode(encode(mask)), mask)
    assert torch.equal(encode(mask, coding="unit"), mask)
    assert torch.equal(decode(mask - 0.2, coding="unit"), (mask - 0.2).clamp(min=0))
    logits = torch.randn(2, 3, 4, 4)
    x_0 = MaskTarget(Labels("regions", ("a", "b", "c")), coding="unit").x_0(logits, mask, HALF)
    assert torch.allclose(x_0, logits.sigmoid())


def test_logits_become_x_0() -> None:
    logits, x_t = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    apart = MaskTarget(Labels("regions", ("a", "b", "c"))).x_0(logits, x_t, HALF)
    assert torch.allclose(apart, torch.tanh(logits / 2), atol=1e-6)
    classes = MaskTarget(Labels("exclusive", ("a", "b", "c"))).x_0(logits, x_t, HALF)
    assert torch.allclose(decode(classes).sum(dim=1), torch.ones(2, 4, 4), atol=1e-6)
    level = Level.of(-2.3)
    clipped, wild = (
        Process(LINEAR, NoiseTarget(), Labels(), clip=clip).denoised(logits, x_t, level).x_0 for clip in (True, False)
    )
    assert clipped.abs().max() == 1 < wild.abs().max()
