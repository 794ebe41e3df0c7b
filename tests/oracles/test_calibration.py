"""Calibration against sums pixel by pixel, and of models whose probabilities are known to be right or wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr
from scipy.stats import bernoulli
from torch.nn import functional

from medsegdiff.data.phantom import make_lesion
from medsegdiff.errors import ShapeError
from medsegdiff.metrics.base import check_shapes
from medsegdiff.metrics.calibration import brier, ece, near, nll
from medsegdiff.metrics.reliability import Calibration


def drawn(seed: int, shape: tuple[int, ...] = (9, 8)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = np.round(rng.random(shape), 1 + seed % 3)  # some lie on the edges of bins, some are 0 or 1
    return p, rng.random(shape) < p**2


def brute_ece(p: np.ndarray, y: np.ndarray, num_bins: int) -> float:
    total = 0.0
    for b in range(num_bins):
        inside = [
            (q, t) for q, t in zip(p.ravel(), y.ravel(), strict=True) if min(int(q * num_bins), num_bins - 1) == b
        ]
        if inside:
            total += len(inside) / p.size * abs(np.mean([q for q, _ in inside]) - np.mean([t for _, t in inside]))
    return total


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 20))
def test_numbers_equal_sums_pixel_by_pixel(seed: int, num_bins: int) -> None:
    p, y = drawn(seed)
    assert ece(p, y, num_bins=num_bins) == pytest.approx(brute_ece(p, y, num_bins))
    assert brier(p, y) == pytest.approx(np.mean((p - y) ** 2))
    curve = Calibration.of(p, y, num_bins=num_bins).curve()
    assert curve.weight.sum() == pytest.approx(1)
    used = curve.weight > 0
    assert np.isnan(curve.predicted[~used]).all()
    assert ((curve.predicted >= curve.edges[:-1] - 1e-12) & (curve.predicted <= curve.edges[1:] + 1e-12))[used].all()
    gaps = np.abs(curve.predicted - curve.observed)[used]
    assert (curve.weight[used] * gaps).sum() == pytest.approx(ece(p, y, num_bins=num_bins))


def test_a_small_case_by_hand() -> None:
    p, y = np.array([0.1, 0.3, 0.6, 1.0]), np.array([False, True, True, True])
    curve = Calibration.of(p, y, num_bins=2).curve()
    assert curve.predicted == pytest.approx([0.2, 0.8])
    assert curve.observed == pytest.approx([0.5, 1.0])
    assert curve.weight == pytest.approx([0.5, 0.5])
    assert ece(p, y, num_bins=2) == pytest.approx((0.3 + 0.2) / 2)
    assert brier(p, y) == pytest.approx((0.01 + 0.49 + 0.16 + 0) / 4)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9999))
def test_cases_pooled_equal_their_pixels_together(seed: int) -> None:
    (p, y), (q, z) = drawn(seed), drawn(seed + 1, (3, 5, 4))
    together = Calibration.of(np.concatenate([p.ravel(), q.ravel()]), np.concatenate([y.ravel(), z.ravel()]))
    for pooled in (Calibration.of(p, y) + Calibration.of(q, z), Calibration.empty().add(p, y).add(q, z)):
        assert pooled.count == pytest.approx(together.count)
        assert (pooled.ece(), pooled.brier()) == pytest.approx((together.ece(), together.brier()))


def phantom(number: int, *, raters: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Give the true probability of each pixel, and the share of raters that drew it."""
    cases = []
    for seed in range(number):
        lesion = make_lesion(32, seed)
        masks = [lesion.raters(np.random.default_rng([seed, k])) for k in range(-(-raters // 5))]
        cases.append((lesion.probability().clip(0, 1), np.concatenate(masks)[:raters].mean(axis=0)))
    return cases


@pytest.mark.parametrize("raters", [1, 5])
def test_the_true_probabilities_of_the_phantom_are_calibrated(raters: int) -> None:
    """Pooled over many lesions: within one, rim and satellite are each drawn or not as a whole."""
    pooled = Calibration.empty()
    cases = phantom(1200, raters=raters)
    for p, y in cases:
        pooled = pooled.add(p, y)
    assert pooled.ece() < 0.01
    inside = Calibration.empty()
    for p, y in cases:
        inside = inside.add(p, y, where=near(p > 0, margin=0))
    assert inside.ece() < 0.03
    sharpened = Calibration.empty()
    for p, y in cases:
        sharpened = sharpened.add((p > 0.5).astype(float), y, where=near(p > 0, margin=0))
    assert sharpened.ece() > 3 * inside.ece()
    assert sharpened.brier() > inside.brier()


def test_background_makes_the_error_small_and_a_region_does_not() -> None:
    lesion = make_lesion(64, 1)
    p, y = np.where(lesion.core, 0.7, 0.0), lesion.core
    region = near(y, margin=3)
    assert ece(p, y, where=y) == pytest.approx(0.3)
    assert ece(p, y) == pytest.approx(0.3 * y.mean())
    assert ece(p, y) < ece(p, y, where=region) < 0.3
    assert ece(p, y, where=region) == pytest.approx(0.3 * y.sum() / region.sum())


def test_errors_on_both_sides_of_one_half_do_not_cancel() -> None:
    """Given 0.3 and 0.7 where the truth is 0.4 and 0.8, the likelier class is right as often as it is given."""
    p = np.repeat([0.3, 0.7], 10)
    y = np.concatenate([np.arange(10) < 4, np.arange(10) < 8])
    likelier, right = np.maximum(p, 1 - p), (p > 0.5) == y
    assert likelier.mean() == pytest.approx(right.mean())
    assert ece(p, y) == pytest.approx(0.1)


def test_share_of_raters_is_their_mean_and_their_own_spread_is_the_difference_in_brier() -> None:
    rng = np.random.default_rng(0)
    p, raters = rng.random((6, 7)), rng.random((4, 6, 7)) < 0.5
    share = raters.mean(axis=0)
    assert ece(p, share) == pytest.approx(brute_ece(p, share, 15))
    each = np.mean([brier(p, rater) for rater in raters])
    assert each == pytest.approx(brier(p, share) + np.mean(share * (1 - share)))
    assert brier(share, share) == ece(share, share) == 0


def test_near_grows_from_side_to_side() -> None:
    mask, none = np.zeros((9, 9), bool), np.zeros((9, 9), bool)
    mask[4, 4] = True
    assert near(mask, none, margin=2).sum() == 13
    assert np.array_equal(near(mask, none, margin=0), mask)
    assert not near(none).any()


def test_no_pixel_is_no_number() -> None:
    p, y = drawn(0)
    assert np.isnan([ece(p, y, where=np.zeros(p.shape, bool)), Calibration.empty().brier()]).all()
    assert not Calibration.empty().curve().weight.any()


def test_slabs_make_no_difference() -> None:
    (p, y), where = drawn(3), drawn(4)[1]
    whole = Calibration.of(p, y, where=where)
    cut = Calibration.of(p, y, where=where, slab=7)
    assert np.array_equal(cut.count, whole.count)
    assert cut.count.sum() == where.sum()
    assert (cut.ece(), cut.brier()) == pytest.approx((whole.ece(), whole.brier()))


def test_single_precision_is_enough() -> None:
    p, y = drawn(3, (200, 200))
    assert ece(p.astype(np.float32), y) == pytest.approx(ece(p.astype(np.float32).astype(float), y), abs=1e-9)


@pytest.mark.parametrize("wrong", [-0.1, 1.01, float("nan")])
def test_what_is_no_probability_is_refused(wrong: float) -> None:
    p, y = drawn(0)
    p[2, 3] = wrong
    with pytest.raises(ValueError, match=r"Probabilities go from .* must lie in \[0, 1\]"):
        ece(p, y)
    with pytest.raises(ValueError, match="References go from"):
        ece(y.astype(float), p)


def test_different_grids_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"p \(3,\), y \(4,\); they must be equal"):
        check_shapes(p=np.zeros(3), y=np.zeros(4))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9999))
def test_the_log_score_is_torchs_binary_cross_entropy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, y = rng.uniform(1e-5, 1 - 1e-5, (9, 8)), rng.integers(0, 5, (9, 8)) / 4
    where = rng.random((9, 8)) < 0.7
    expected = functional.binary_cross_entropy(torch.from_numpy(p[where]), torch.from_numpy(y[where]))
    assert nll(p, y, where=where) == pytest.approx(expected.item())
    pooled = Calibration.of(p[:4], y[:4]).add(p[4:], y[4:])
    assert pooled.nll() == pytest.approx(nll(p, y))


@pytest.mark.parametrize("p", [0.5, 0.2, 0.03])
def test_the_log_score_of_the_truth_is_the_entropy_of_a_coin(p: float) -> None:
    truth = np.full(50, p)
    assert nll(truth, truth) == pytest.approx(bernoulli(p).entropy())
    for wrong in (p / 2, p + 0.2):  # the excess is the divergence of the two coins
        divergence = rel_entr([p, 1 - p], [wrong, 1 - wrong]).sum()
        assert nll(np.full(50, wrong), truth) == pytest.approx(bernoulli(p).entropy() + divergence)


def test_the_log_score_of_what_was_ruled_out_is_bounded() -> None:
    assert nll(np.array([0.0, 1.0]), np.array([True, False])) == pytest.approx(-np.log(1e-6))
    assert nll(np.array([0.0, 1.0]), np.array([False, True])) == pytest.approx(1e-6, rel=1e-3)
    assert np.isnan(nll(np.zeros(3), np.zeros(3), where=np.zeros(3, bool)))
