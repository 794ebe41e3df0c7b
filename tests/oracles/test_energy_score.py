"""The energy score of samples: against loops over sets of pixels, against GED², and whether it is proper."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from medsegdiff.diffusion.losses import energy_score, jaccard_distance
from medsegdiff.metrics.distribution import ged


def masks(*shape: int, seed: int = 0) -> Tensor:
    """Masks of 0 and 1, from empty to full."""
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(*shape[:-2], 1, 1, generator=generator) * 1.2 - 0.1
    return (torch.rand(*shape, generator=generator) < share).float()


def one_minus_iou(a: Tensor, b: Tensor, *, common: tuple[int, ...] = ()) -> float:
    """By sets of pixels; those in ``common`` are in both."""
    one, other = ({*np.flatnonzero(mask.numpy()).tolist(), *common} for mask in (a, b))
    return 1 - len(one & other) / len(one | other) if one | other else 0.0


@pytest.mark.parametrize("shared", [0, 1, 3])
def test_the_score_of_masks_is_that_of_loops_over_pairs(shared: int) -> None:
    """Shared pixels are pixels that all masks hold, beside those of the grid."""
    samples, raters = masks(3, 4, 2, 5, 6), masks(3, 5, 2, 5, 6, seed=1)
    samples[0, 0], raters[0, 0] = 0, 0
    common = tuple(range(-shared, 0))
    expected = []
    for b in range(3):
        by_channel = []
        for k in range(2):
            s, y = samples[b, :, k], raters[b, :, k]
            between = np.mean([one_minus_iou(a, r, common=common) for a in s for r in y])
            pairs = itertools.permutations(range(4), 2)
            within = np.mean([one_minus_iou(s[i], s[j], common=common) for i, j in pairs])
            by_channel.append(between - within / 2)
        expected.append(np.mean(by_channel))
    assert energy_score(samples, raters, shared=float(shared)).tolist() == pytest.approx(expected, abs=1e-6)


def test_twice_the_score_is_the_unbiased_ged_but_for_the_distance_among_raters() -> None:
    samples, raters = masks(1, 6, 1, 8, 8), masks(1, 4, 1, 8, 8, seed=2)
    truth = ged(samples[0, :, 0].numpy() > 0, raters[0, :, 0].numpy() > 0, distinct=True)
    score = float(energy_score(samples, raters, shared=0.0))
    assert 2 * score - truth.within_raters == pytest.approx(truth.value, abs=1e-6)


def test_the_distance_of_soft_masks_is_the_formula_and_that_of_equal_ones_is_nothing() -> None:
    a, b = torch.rand(2, 7, 9, generator=torch.Generator().manual_seed(0))
    apart = (a - b).abs().sum()
    formula = 1 - (a.sum() + b.sum() - apart) / (a.sum() + b.sum() + apart)
    assert float(jaccard_distance(a, b)) == pytest.approx(float(formula), abs=1e-6)
    assert float(jaccard_distance(a, a)) == pytest.approx(0, abs=1e-6)
    empty = torch.zeros(7, 9)
    assert float(jaccard_distance(empty, empty)) == 0
    assert float(jaccard_distance(empty, a)) == pytest.approx(1)
    assert float(jaccard_distance(empty, empty + 0.01, shared=1.0)) == pytest.approx(0.63 / 1.63, abs=1e-5)


def test_distances_of_soft_and_hard_masks_are_of_negative_type() -> None:
    """Then, and only then, is the score proper: no weights that sum to 0 give a positive quadratic form."""
    generator = torch.Generator().manual_seed(0)
    for seed in range(20):
        some = torch.cat(
            [masks(8, 6, 6, seed=seed), torch.rand(8, 6, 6, generator=generator) ** 4, torch.zeros(1, 6, 6)]
        )
        for shared in (0.0, 1.0):
            d = jaccard_distance(some[:, None].double(), some[None].double(), shared=shared).numpy()
            centred = np.eye(17) - 1 / 17
            assert np.linalg.eigvalsh(-centred @ d @ centred).min() > -1e-10


@pytest.mark.parametrize("p", [0.2, 0.5, 0.9])
def test_the_raters_own_law_has_the_lowest_expected_score(p: float) -> None:
    """Two masks, the second drawn by a share p of raters; two samples draw it with q. All outcomes are enumerated."""
    two = torch.zeros(2, 1, 6, 6)
    two[0, :, :3], two[1, :, :4, :5] = 1, 1
    outcomes = torch.tensor(list(itertools.product((0, 1), repeat=3)))  # sample, sample, rater
    scores = energy_score(two[outcomes[:, :2]], two[outcomes[:, 2:]]).double()

    def expected(q: float) -> float:
        chances = torch.tensor([q, q, p]).double()
        return float((torch.where(outcomes == 1, chances, 1 - chances).prod(dim=1) * scores).sum())

    grid = np.linspace(0, 1, 101)
    assert grid[np.argmin([expected(q) for q in grid])] == pytest.approx(p)
    mean = ((1 - p) * two[0] + p * two[1]).expand(1, 2, 1, 6, 6)
    of_mean = [float(energy_score(mean, two[None, rater : rater + 1])) for rater in (0, 1)]
    assert (1 - p) * of_mean[0] + p * of_mean[1] > expected(p)  # as sure as cross-entropy would have it, and no mask


def test_a_sampler_learns_how_often_raters_draw_a_part_and_to_draw_all_of_it_or_nothing() -> None:
    """It has two numbers: from which noise on it draws the part, and how steeply."""
    generator = torch.Generator().manual_seed(0)
    core, part = torch.zeros(2, 8, 8)
    core[:4], part[4:6] = 1, 1
    steepness, offset = torch.tensor(1.0, requires_grad=True), torch.tensor(0.0, requires_grad=True)
    optimizer = torch.optim.Adam([steepness, offset], lr=0.1)
    for _ in range(100):
        noise = torch.randn(32, 4, 1, 1, 1, generator=generator)
        samples = core + part * (steepness.exp() * (noise + offset)).sigmoid()
        drawn = (torch.rand(32, 3, 1, 1, 1, generator=generator) < 0.25).float()  # by three raters of each image
        optimizer.zero_grad()
        energy_score(samples, core + part * drawn).mean().backward()
        optimizer.step()
    share = torch.distributions.Normal(0, 1).cdf(offset.detach())
    assert float(share) == pytest.approx(0.25, abs=0.06)
    assert float(steepness.detach().exp()) > 6  # it began at 2.7


def test_gradients_are_exact_and_flow_to_every_sample_but_not_to_what_nobody_labelled() -> None:
    samples = torch.rand(2, 3, 1, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    raters = masks(2, 2, 1, 3, 4).double()
    raters[0] = 0  # none of them drew anything
    labelled = torch.ones(2, 1, 3, 4, dtype=torch.float64)
    labelled[..., :2] = 0
    samples.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: energy_score(s, raters, labelled=labelled), (samples,))
    energy_score(samples, raters, labelled=labelled).sum().backward()
    assert samples.grad is not None
    assert not samples.grad[..., :2].any()
    assert samples.grad[..., 2:].abs().sum(dim=(2, 3, 4)).min() > 0
    nothing = torch.zeros(1, 2, 1, 4, 4, requires_grad=True)
    energy_score(nothing, torch.zeros(1, 1, 1, 4, 4), shared=0.0).sum().backward()
    assert nothing.grad is not None
    assert nothing.grad.isfinite().all()
