"""One calibrated probability: mixed and scaled so that it fits what raters drew."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit, logit

from medsegdiff.fusion.mixture import Mixture, fit_mixture, log_score

N = 40_000


def truth(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of pixels, and what one rater drew of them."""
    rng = np.random.default_rng(seed)
    p = expit(rng.normal(-0.5, 2.0, N))
    return p, (rng.random(N) < p).astype(float)


def fitted(anchor: np.ndarray | None, expected: np.ndarray, drawn: np.ndarray) -> tuple[Mixture, float]:
    tensors = (None if of is None else torch.from_numpy(of)[None] for of in (anchor, drawn))
    known, share = tensors
    return fit_mixture(known, torch.from_numpy(expected)[None, None], share, times=[999.0], exclusive=False)


def test_log_odds_that_are_twice_too_sure_and_shifted_are_put_right() -> None:
    p, drawn = truth()
    sure = expit(2 * logit(p) + 1)
    mixture, _ = fitted(sure, np.full(N, drawn.mean()), drawn)
    assert mixture.weight > 0.97
    assert mixture.slopes[0] == pytest.approx(0.5, abs=0.04)
    assert mixture.offsets[0] == pytest.approx(-0.5, abs=0.06)
    q, again = truth(1)
    said = mixture(torch.from_numpy(expit(2 * logit(q) + 1))[None], torch.from_numpy(again)[None] * 0, exclusive=False)
    assert float((said[0] - torch.from_numpy(q)).abs().mean()) < 0.02


def test_two_that_err_by_themselves_are_better_together_than_the_better_one() -> None:
    rng = np.random.default_rng(2)
    p, drawn = truth()
    a, b = (expit(logit(p) + rng.normal(0, noise, N)) for noise in (1.0, 1.3))
    mixture, score = fitted(a, b, drawn)
    alone = [
        float(log_score(torch.from_numpy(of)[None], torch.from_numpy(drawn)[None], exclusive=False)) for of in (a, b)
    ]
    assert 0.3 < mixture.weight < 0.9
    assert score < min(alone) - 0.005


@pytest.mark.parametrize("seed", range(4))
def test_the_score_is_never_above_that_of_either_part(seed: int) -> None:
    rng = np.random.default_rng(seed)
    _, drawn = truth(seed)
    a, b = (np.clip(0.4 * drawn + rng.random(N) * rng.uniform(0.3, 0.6), 0, 1) for _ in range(2))
    _, score = fitted(a, b, drawn)
    share = torch.from_numpy(drawn)[None]
    assert score <= min(float(log_score(torch.from_numpy(of)[None], share, exclusive=False)) for of in (a, b)) + 1e-9


def test_the_time_with_the_better_expectation_is_taken() -> None:
    rng = np.random.default_rng(0)
    p, drawn = truth()
    votes = rng.binomial(5, p) / 5
    both = torch.from_numpy(np.stack([votes, p]))[:, None]
    mixture, _ = fit_mixture(None, both, torch.from_numpy(drawn)[None], times=[0.0, 700.0], exclusive=False)
    assert mixture.time == 700.0
    assert mixture.nearest([999.0, 650.0, 0.0]) == 1
    assert Mixture().nearest([999.0, 650.0, 0.0]) == 0


def test_exclusive_classes_stay_a_distribution_and_a_class_said_too_often_is_said_less() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet((2.0, 1.0, 0.5), size=N).T
    drawn = np.stack([np.arange(3) == rng.choice(3, p=column) for column in p.T[:8000]]).T.astype(float)
    wrong = p[:, :8000] * np.array([[1.0], [1.0], [4.0]])
    wrong /= wrong.sum(axis=0)
    said, share = torch.from_numpy(wrong), torch.from_numpy(drawn)
    mixture, score = fit_mixture(said, said[None], share, times=[0.0], exclusive=True)
    right = mixture(said, said, exclusive=True)
    assert torch.allclose(right.sum(dim=0), torch.ones(8000, dtype=torch.float64))
    assert float((right - torch.from_numpy(p[:, :8000])).abs().mean()) < 0.02
    assert score < float(log_score(said, share, exclusive=True))


@pytest.mark.parametrize("held", [None, np.array([True, True, False])])
def test_a_class_that_nobody_drew_stays_as_probable_as_it_was(held: np.ndarray | None) -> None:
    """Two classes are said twice too surely; of a third one, which the cases lack (or show too rarely), little."""
    rng = np.random.default_rng(0)
    p = expit(rng.normal(0, 2, 20_000))
    first = rng.random(20_000) < p
    rare = np.full(20_000, 0.02)
    sure = (1 - rare) * expit(2 * logit(p))
    said = torch.from_numpy(np.stack([1 - rare - sure, sure, rare]))
    drawn = np.stack([~first, first, np.zeros(20_000, bool)]).astype(float)
    if held is not None:
        drawn[:2, :3], drawn[2, :3] = 0, 1
    mixture, _ = fit_mixture(said, said[None], torch.from_numpy(drawn), times=[0.0], exclusive=True, held=held)
    assert mixture.slopes == (*(pytest.approx(0.5, abs=0.05),) * 2, 1)
    scaled = mixture(said, said, exclusive=True)
    assert float(scaled[1].sub(torch.from_numpy(p)).abs().mean()) < 0.02
    assert float((scaled[2].logit() - said[2].logit()).mean()) == pytest.approx(0, abs=1e-6)
    elsewhere = torch.tensor([[0.05], [0.1], [0.85]], dtype=torch.float64)
    assert float(mixture(elsewhere, elsewhere, exclusive=True)[2, 0]) > 0.6


def test_a_region_that_nobody_drew_keeps_its_odds_and_the_others_are_fitted() -> None:
    p, drawn = truth()
    said = torch.from_numpy(np.stack([expit(2 * logit(p) + 1), p]))
    share = torch.from_numpy(np.stack([drawn, 0 * drawn]))
    mixture, _ = fit_mixture(said, said[None], share, times=[0.0], exclusive=False)
    assert mixture.slopes == (pytest.approx(0.5, abs=0.04), 1)
    assert mixture.offsets == (pytest.approx(-0.5, abs=0.06), 0)


def test_where_nobody_drew_anything_nothing_is_fitted() -> None:
    p, drawn = truth()
    assert fitted(p, p, 0 * drawn)[0] == Mixture()


def test_without_calibration_it_is_the_mean_of_both_or_what_members_expect_alone() -> None:
    a, b = torch.tensor([[0.2, 0.9]]), torch.tensor([[0.4, 0.5]])
    assert torch.allclose(Mixture()(a, b, exclusive=False), torch.tensor([[0.3, 0.7]]))
    assert torch.allclose(Mixture()(None, b, exclusive=False), b)
