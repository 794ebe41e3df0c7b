"""The learned variance of the ancestral sampler, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from medsegdiff.diffusion.losses import WEIGHT, split, variance_loss
from medsegdiff.diffusion.samplers import Denoised, sample
from medsegdiff.diffusion.schedule import make_schedule
from medsegdiff.diffusion.spacing import make_table
from medsegdiff.training.objective import draw
from medsegdiff.types import Batch
from tests.makers import losses_of, small_config


def test_an_output_of_twice_the_channels_is_prediction_and_share() -> None:
    output = torch.randn(2, 6, 4, 4)
    prediction, share = split(output, 3)
    assert torch.equal(prediction, output[:, :3])
    assert torch.allclose(share, output[:, 3:] / 2 + 0.5)
    assert split(output, 6) == (output, None)


@pytest.mark.parametrize("step", [1, 10, 500, 999])
def test_the_loss_is_the_divergence_between_posterior_and_step(step: int) -> None:
    """β_t and the posterior as Ho et al. (2020) write them, in equations 6 and 7."""
    schedule = make_schedule("linear")
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alpha_bar = torch.cumprod(1 - beta, dim=0)
    variance = beta[step] * (1 - alpha_bar[step - 1]) / (1 - alpha_bar[step])
    weight_of_x_0 = beta[step] * alpha_bar[step - 1].sqrt() / (1 - alpha_bar[step])
    share, error = torch.rand(1, 1, 3, 3, dtype=torch.float64), torch.randn(1, 1, 3, 3, dtype=torch.float64)
    std = torch.exp(0.5 * (share * beta[step].log() + (1 - share) * variance.log()))
    expected = kl_divergence(Normal(weight_of_x_0 * error, variance.sqrt()), Normal(0.0, std)) / math.log(2)
    loss = variance_loss(share, error, torch.tensor([step]), schedule)
    assert torch.allclose(loss, 1000 * WEIGHT * expected, rtol=1e-6)


def test_the_first_step_has_no_variance_to_learn() -> None:
    share = torch.rand(2, 1, 3, 3, requires_grad=True)
    loss = variance_loss(share, torch.randn(2, 1, 3, 3), torch.tensor([0, 400]), make_schedule("linear"))
    loss.sum().backward()
    assert torch.equal(loss[0], torch.zeros(1, 3, 3))
    assert share.grad is not None
    assert torch.equal(share.grad[0], torch.zeros(1, 3, 3))
    assert share.grad[1].abs().min() > 0


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_noise_of_a_step_lies_between_the_posteriors_and_beta(share: float) -> None:
    schedule = make_schedule("linear")
    rows = make_table("ddpm", schedule, num_steps=1000, spacing="trailing")[400:401]  # from t = 599 to t = 598
    beta = 1e-4 + 599 / 999 * (0.02 - 1e-4)
    posterior = beta * (1 - schedule.alpha_bar[598]) / (1 - schedule.alpha_bar[599])
    x = torch.zeros(1, 1, 64, 64)
    got = sample(lambda x_t, t: Denoised(x, x + share), x, rows, noise=lambda: torch.ones_like(x))
    assert got.mean().item() ** 2 == pytest.approx(beta**share * float(posterior) ** (1 - share), rel=1e-4)


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp-2m", "dpmpp-sde-2m"])
def test_other_samplers_take_the_prediction_alone(sampler: str) -> None:
    table = make_table(sampler, make_schedule("cosine"), num_steps=5)
    x, noise = torch.randn(1, 1, 4, 4), torch.randn(1, 1, 4, 4)
    plain = sample(lambda x_t, t: torch.tanh(x_t), x, table, noise=lambda: noise)
    told = sample(lambda x_t, t: Denoised(torch.tanh(x_t), torch.ones_like(x_t)), x, table, noise=lambda: noise)
    assert torch.equal(plain, told)


@pytest.mark.parametrize("coding", ["signed", "unit"])
@pytest.mark.parametrize("target", ["eps", "v", "x0"])
def test_a_perfect_network_that_asks_for_the_posteriors_variance_has_no_loss(target: str, coding: str) -> None:
    config = small_config(f"diffusion.target={target}", "data.task=binary", f"diffusion.coding={coding}")
    schedule, positions = make_schedule("cosine", signal_scale=0.3), (3, 7, 11, 20)
    mask = (torch.rand(4, 1, 8, 8) > 0.5).float()
    coded = mask if coding == "unit" else 2 * mask - 1
    t, noise = draw(positions, schedule, mask, seed=config.train.seed)
    alpha = schedule.alpha_bar[t].sqrt().reshape(-1, 1, 1, 1).float()
    sigma = (1 - schedule.alpha_bar[t]).sqrt().reshape(-1, 1, 1, 1).float()
    answer = {"eps": noise, "v": alpha * noise - sigma * coded, "x0": 40 * (2 * mask - 1)}[target]

    class Perfect(torch.nn.Module):
        def __init__(self, v: float) -> None:
            super().__init__()
            self.v = v

        def forward(self, image: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            assert torch.allclose(x_t, alpha * coded + sigma * noise, atol=1e-6)
            return torch.cat([answer, torch.full_like(answer, self.v)], dim=1), 40 * (2 * mask - 1)

    batch = Batch(torch.zeros(4, 3, 8, 8), mask, positions)
    assert losses_of(Perfect(-1.0), batch, config, signal_scale=0.3).noise.item() == pytest.approx(0, abs=1e-5)
    assert losses_of(Perfect(1.0), batch, config, signal_scale=0.3).noise.item() > 1e-7
