"""Equation 3: L = L_n + [t ≡ 0 mod α] (L_dice + β L_ce)."""

from __future__ import annotations

import math

import pytest
import torch

from medsegdiff.config.diffusion import LossConfig
from medsegdiff.diffusion.losses import cross_entropy, soft_dice
from medsegdiff.diffusion.schedule import make_schedule
from medsegdiff.labels import Labels
from medsegdiff.training.objective import anchor_loss, draw
from medsegdiff.types import Batch
from tests.makers import losses_of, small_config


def test_soft_dice_by_hand() -> None:
    probability = torch.tensor([[[[1.0, 0.5], [0.0, 0.0]]]])
    mask = torch.tensor([[[[1.0, 1.0], [1.0, 0.0]]]])
    assert soft_dice(probability, mask).tolist() == pytest.approx([1 - (2 * 1.5 + 1) / (1.5 + 3 + 1)])


def test_soft_dice_of_two_empty_masks_is_0() -> None:
    assert soft_dice(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)).item() == 0


def test_cross_entropy_by_hand() -> None:
    logits, mask = torch.tensor([[[[0.3, -2.0]]]]), torch.tensor([[[[1.0, 0.0]]]])
    by_hand = -(math.log(1 / (1 + math.exp(-0.3))) + math.log(1 - 1 / (1 + math.exp(2.0)))) / 2
    assert cross_entropy(logits, mask, exclusive=False).item() == pytest.approx(by_hand)


def test_cross_entropy_of_exclusive_classes_is_torchs() -> None:
    logits, labels = torch.randn(2, 4, 5, 5), torch.randint(4, (2, 5, 5))
    mask = torch.nn.functional.one_hot(labels, 4).movedim(-1, 1).float()
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="none").mean(dim=(1, 2))
    assert torch.allclose(cross_entropy(logits, mask, exclusive=True), expected, atol=1e-6)


@pytest.fixture
def predictions() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(10, 1, 6, 6, generator=generator), (torch.rand(10, 1, 6, 6, generator=generator) > 0.5).float()


def test_indicator_is_taken_per_sample(predictions: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, mask = predictions
    t = torch.tensor([0, 1, 2, 3, 4, 5, 9, 10, 500, 999])
    loss = anchor_loss(logits, mask, t, LossConfig(anchor_weighting="indicator"), labels=Labels())
    assert [bool(value > 0) for value in loss] == [True, False, False, False, False, True, False, True, True, False]
    whole = soft_dice(logits.sigmoid(), mask) + 10 * cross_entropy(logits, mask, exclusive=False)
    assert torch.allclose(loss[[0, 5]], whole[[0, 5]])


def test_expected_weight_is_the_mean_of_the_indicator_over_all_steps(
    predictions: tuple[torch.Tensor, torch.Tensor],
) -> None:
    logits, mask = (part[:1].expand(1000, -1, -1, -1) for part in predictions)
    t = torch.arange(1000)
    indicator = anchor_loss(logits, mask, t, LossConfig(anchor_weighting="indicator"), labels=Labels()).mean()
    expected = anchor_loss(logits, mask, t, LossConfig(anchor_weighting="expected"), labels=Labels()).mean()
    assert torch.allclose(indicator, expected, rtol=1e-4)


@pytest.mark.parametrize("target", ["eps", "v", "x0"])
def test_a_perfect_network_has_no_diffusion_loss(target: str) -> None:
    config = small_config(f"diffusion.target={target}", "data.task=binary")
    schedule = make_schedule("cosine", signal_scale=0.3)
    mask = (torch.rand(4, 1, 8, 8) > 0.5).float()
    positions = (3, 7, 11, 20)
    t, noise = draw(positions, schedule, mask, seed=config.train.seed)
    alpha = schedule.alpha_bar[t].sqrt().reshape(-1, 1, 1, 1).float()
    sigma = (1 - schedule.alpha_bar[t]).sqrt().reshape(-1, 1, 1, 1).float()
    answers = {"eps": noise, "v": alpha * noise - sigma * (2 * mask - 1), "x0": 40 * (2 * mask - 1)}

    class Perfect(torch.nn.Module):
        def forward(self, image: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            assert torch.allclose(x_t, alpha * (2 * mask - 1) + sigma * noise, atol=1e-6)
            return answers[target], 40 * (2 * mask - 1)

    losses = losses_of(Perfect(), Batch(torch.zeros(4, 3, 8, 8), mask, positions), config, signal_scale=0.3)
    assert losses.noise.item() == pytest.approx(0, abs=1e-5)
    assert losses.total.item() == pytest.approx(0, abs=1e-4)


def test_randomness_of_a_sample_follows_from_its_position_alone() -> None:
    schedule, like = make_schedule("cosine"), torch.zeros(3, 1, 4, 4)
    t, noise = draw([5, 6, 7], schedule, like, seed=0)
    t_other, noise_other = draw([7, 1, 5], schedule, like, seed=0)
    assert t[0] == t_other[2]
    assert torch.equal(noise[2], noise_other[0])
    assert not torch.equal(noise, draw([5, 6, 7], schedule, like, seed=1)[1])
