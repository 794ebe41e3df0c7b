"""Equation 3: L = L_n + [t ≡ 0 mod α] (L_dice + β L_ce)."""

from __future__ import annotations

import math

import pytest
import torch

from medsegdiff.config.diffusion import LossConfig
from medsegdiff.diffusion.process import Process
from medsegdiff.diffusion.schedule import make_schedule
from medsegdiff.diffusion.target import decided
from medsegdiff.labels import Labels
from medsegdiff.models.base import Said, build_model
from medsegdiff.nn.losses import cross_entropy, soft_dice
from medsegdiff.training.objective import anchor_losses, anchor_weight, draw, mask_terms, training_losses, with_anchor
from medsegdiff.training.plan import check_sampling
from medsegdiff.types import Batch
from tests.makers import losses_of, randomised, small_config, small_network


def test_soft_dice_by_hand() -> None:
    probability = torch.tensor([[[[1.0, 0.5], [0.0, 0.0]]]])
    mask = torch.tensor([[[[1.0, 1.0], [1.0, 0.0]]]])
    assert soft_dice(probability, mask).tolist() == pytest.approx([1 - (2 * 1.5 + 1) / (1.5 + 3 + 1)])


def test_soft_dice_of_two_empty_masks_is_0() -> None:
    assert soft_dice(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)).item() == 0


def test_soft_dice_of_a_batch_by_hand() -> None:
    """Two images: 1 of 1 and 2 pixels in common, then none of 1 and 0; together 1 of 2 and 2. Truth: fractions."""
    probability = torch.tensor([[[[1.0, 0.0]]], [[[1.0, 0.0]]]])
    mask = torch.tensor([[[[1.0, 1.0]]], [[[0.0, 0.0]]]])
    assert soft_dice(probability, mask).tolist() == pytest.approx([1 - 3 / 4, 1 - 1 / 2])
    assert soft_dice(probability, mask, batch=True).tolist() == pytest.approx([1 - 3 / 5] * 2)
    labelled = torch.tensor([[[[1.0, 1.0]]], [[[0.0, 0.0]]]])
    assert soft_dice(probability, mask, labelled=labelled, batch=True).tolist() == pytest.approx([1 - 3 / 4] * 2)


def test_dice_of_a_batch_is_that_of_its_images_laid_side_by_side(
    predictions: tuple[torch.Tensor, torch.Tensor],
) -> None:
    logits, mask = predictions
    loss = LossConfig(alpha=1, beta=0, batch_dice=True)
    aside = [torch.cat(list(part), dim=-1)[None] for part in predictions]
    alone = mask_terms(*aside, LossConfig(alpha=1, beta=0), labels=Labels())
    assert torch.allclose(mask_terms(logits, mask, loss, labels=Labels()), alone.expand(10))


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


def anchor_loss(logits: torch.Tensor, mask: torch.Tensor, t: torch.Tensor, config: LossConfig) -> torch.Tensor:
    return mask_terms(logits, mask, config, labels=Labels()) * anchor_weight(t, config)


def test_indicator_is_taken_per_sample(predictions: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, mask = predictions
    t = torch.tensor([0, 1, 2, 3, 4, 5, 9, 10, 500, 999])
    loss = anchor_loss(logits, mask, t, LossConfig(anchor_weighting="indicator"))
    assert [bool(value > 0) for value in loss] == [True, False, False, False, False, True, False, True, True, False]
    whole = soft_dice(logits.sigmoid(), mask) + 10 * cross_entropy(logits, mask, exclusive=False)
    assert torch.allclose(loss[[0, 5]], whole[[0, 5]])


def test_expected_weight_is_the_mean_of_the_indicator_over_all_steps(
    predictions: tuple[torch.Tensor, torch.Tensor],
) -> None:
    logits, mask = (part[:1].expand(1000, -1, -1, -1) for part in predictions)
    t = torch.arange(1000)
    indicator = anchor_loss(logits, mask, t, LossConfig(anchor_weighting="indicator")).mean()
    expected = anchor_loss(logits, mask, t, LossConfig(anchor_weighting="expected")).mean()
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


def stratified_draws(draws: int) -> torch.Tensor:
    t, _ = draw(range(500), make_schedule("cosine"), torch.zeros(500, 1, 1, 1), seed=3, draws=draws)
    return t.reshape(500, draws)


def test_the_draws_of_a_look_share_out_the_levels_of_noise() -> None:
    t = stratified_draws(4)
    for part in range(4):
        assert (t[:, part] >= 250 * part).all()
        assert (t[:, part] < 250 * (part + 1)).all()
        assert t[:, part].float().mean() == pytest.approx(250 * part + 124.5, abs=15)


def test_further_draws_leave_the_first_noise_as_it_was() -> None:
    like, schedule = torch.zeros(2, 1, 4, 4), make_schedule("cosine")
    _, one = draw([5, 6], schedule, like, seed=0)
    _, three = draw([5, 6], schedule, like, seed=0, draws=3)
    assert torch.equal(three.reshape(2, 3, 1, 4, 4)[:, 0], one)
    assert not torch.equal(three[0], three[1])


def test_the_loss_of_several_draws_is_the_mean_over_them_each_with_its_rater() -> None:
    """Truth: the same draws one by one, as images of their own."""
    config = small_config("data.task=binary", "data.channels=3", "train.draws=4")
    torch.manual_seed(0)
    model = randomised(build_model(config))
    image, masks = torch.randn(2, 3, 32, 32), (torch.rand(2, 2, 1, 32, 32) > 0.5).float()
    batch = Batch(image, masks[:, 0], (4, 9), others=masks[:, 1:])
    process = Process.of(config)
    together = training_losses(model, batch, process, config.loss, seed=0, draws=4)
    t, noise = draw((4, 9), process.schedule, batch.mask, seed=0, draws=4)
    by_hand, anchor = [], []
    for index in range(8):
        one = slice(index // 4, index // 4 + 1)
        mask = masks[one, index % 2]
        noised = process.noisy(mask, t[index : index + 1], noise[index : index + 1])
        said = model(image[one], noised.x_t, t[index : index + 1].float())
        by_hand.append(process.loss(said.prediction, noised))
        anchor.append(mask_terms(said.logits, mask, config.loss, labels=Labels()) / config.loss.alpha)
    assert together.noise.item() == pytest.approx(torch.cat(by_hand).mean().item(), rel=1e-5)
    assert together.anchor is not None
    assert together.anchor.item() == pytest.approx(torch.cat(anchor).mean().item(), rel=1e-5)


def test_the_condition_model_alone_has_the_second_term_and_nothing_reaches_the_diffusion_model() -> None:
    config = small_config("data.task=binary", "data.channels=3")
    torch.manual_seed(0)
    model = randomised(build_model(config))
    image, masks = torch.randn(2, 3, 32, 32), (torch.rand(2, 2, 1, 32, 32) > 0.5).float()
    losses = anchor_losses(model, Batch(image, masks[:, 0], (4, 9), others=masks[:, 1:]), config.loss, labels=Labels())
    losses.total.backward()
    logits = model.condition(image).logits
    terms = [mask_terms(logits, masks[:, rater], config.loss, labels=Labels()).mean() for rater in (0, 1)]
    assert losses.total.item() == pytest.approx(torch.stack(terms).mean().item() / config.loss.alpha, rel=1e-5)
    assert all(p.grad is None for p in model.diffusion_model.parameters())
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in model.condition_model.parameters())


def test_coarser_grids_are_supervised_by_shares_with_falling_weights() -> None:
    labels, loss = Labels(), LossConfig(alpha=1)
    mask = (torch.rand(2, 1, 8, 8) > 0.5).float()
    logits, deep = torch.randn(2, 1, 8, 8), torch.randn(2, 1, 4, 4)
    t = torch.zeros(2, dtype=torch.int64)
    found = with_anchor(
        torch.zeros(2), Said(logits, logits, (deep,)), Batch(logits, mask, (0, 1)), t, loss, labels=labels
    )
    fine = mask_terms(logits, mask, loss, labels=labels)
    coarse = mask_terms(deep, torch.nn.functional.avg_pool2d(mask, 2), loss, labels=labels)
    assert found.total.item() == pytest.approx(((fine + coarse / 2) / 1.5).mean().item(), rel=1e-6)


def minimiser(p: float, weight: float, *, core: int, rim: int, pixels: int) -> float:
    """What a denoiser says at best of a rim that a share p of raters draw around a core: by trying all answers."""
    q = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)[:, None, None, None]
    said = torch.cat([torch.full((999, 1, 1, core), 1.0, dtype=torch.float64), q.expand(-1, 1, 1, rim)], dim=3)
    risk = torch.zeros(999, dtype=torch.float64)
    for drawn, share in ((1.0, p), (0.0, 1 - p)):
        mask = torch.cat([torch.ones(999, 1, 1, core), torch.full((999, 1, 1, rim), drawn)], dim=3).double()
        ce = -(rim / pixels) * (drawn * q.log() + (1 - drawn) * (1 - q).log()).flatten()
        risk += share * (ce + weight * soft_dice(said, mask))
    return float(q.flatten()[risk.argmin()])


def test_cross_entropy_alone_asks_for_the_share_of_raters_and_soft_dice_for_0_or_1() -> None:
    where = {"core": 600, "rim": 600, "pixels": 4096}
    assert minimiser(0.3, 0.0, **where) == pytest.approx(0.3, abs=0.002)
    assert minimiser(0.3, 1.0, **where) < 0.2


def test_the_weight_of_soft_dice_falls_to_0_where_nothing_is_decided_and_stays_where_all_is() -> None:
    process = Process.of(small_config("data.task=binary"))
    masks = torch.zeros(3, 1, 64, 64)
    weight = decided(process.noisy(masks, torch.tensor([0, 500, 999]), masks))
    assert weight[0] > 0.99
    assert 0.01 < weight[1] < 0.99
    assert weight[2] < 0.001
    level = process.schedule.alpha_bar[500]
    distance = 4 * 64 * level / (1 - level)  # squared, between the means of 64 pixels that are there, or not
    assert weight[1].item() == pytest.approx(float(distance / (distance + 16)), rel=1e-4)


def test_a_network_that_learns_the_variance_is_recycled_by_its_prediction() -> None:
    config = small_network("medsegdiff-v1", "data.task=binary", "model.learn_sigma=true", "loss.recycled=1.0")
    check_sampling(config)
    model, image = randomised(build_model(config)), torch.randn(2, 3, 32, 32)
    losses = losses_of(model, Batch(image, (image[:, :1] > 0).float(), (1, 2)), config)
    losses.total.backward()
    assert losses.total.isfinite()
    assert all(of.grad is None or of.grad.isfinite().all() for of in model.parameters())


def test_a_recycled_batch_is_noised_from_what_the_network_says_of_pure_noise_and_learns_the_mask() -> None:
    config = small_config("data.task=binary", "loss.recycled=1.0")
    process, mask = Process.of(config), torch.ones(2, 1, 32, 32)
    seen: list[torch.Tensor] = []

    class Grey(torch.nn.Module):
        """Says ½ everywhere: x_0 = 0 where masks are −1 and +1."""

        def forward(self, image: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, None]:
            seen.append(x_t)
            return torch.zeros_like(x_t, requires_grad=True), None

    losses = losses_of(Grey(), Batch(torch.zeros(2, 3, 32, 32), mask, (1, 2)), config)
    t, noise = draw((1, 2), process.schedule, mask, seed=config.train.seed)
    sigma = (1 - process.schedule.alpha_bar[t]).sqrt().reshape(-1, 1, 1, 1).float()
    assert len(seen) == 2
    assert torch.allclose(seen[1], sigma * noise, atol=1e-6)
    assert losses.noise.item() == pytest.approx(
        math.log(2) + soft_dice(torch.full_like(mask, 0.5), mask)[0].item(), rel=1e-5
    )
