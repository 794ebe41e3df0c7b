"""Intervals of sizes against scipy, brute force and simulated cases whose true sizes are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import energy_distance

from medsegdiff.errors import ShapeError
from medsegdiff.metrics.conformal import fit_stretch
from medsegdiff.metrics.intervals import Stretch, interval_of, size_covered, size_crps, size_width


def cases(count: int, *, seed: int, members: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Members that are a quarter too small and too much alike, of sizes from tens to thousands."""
    rng = np.random.default_rng(seed)
    level = rng.lognormal(6, 1, count)
    truth = level * rng.lognormal(0, 0.3, count)
    sizes = 0.75 * level[:, None] * rng.lognormal(0, 0.1, (count, members))
    return sizes.round().astype(np.int64), truth.round().astype(np.int64)


def held(sizes: np.ndarray, truth: np.ndarray, stretch: Stretch) -> float:
    return float(np.mean(inside(sizes, truth, stretch)))


def inside(sizes: np.ndarray, truth: np.ndarray, stretch: Stretch) -> np.ndarray:
    low, high = np.quantile(sizes, [0.05, 0.95], axis=1)
    scale = sizes.mean(axis=1).clip(min=1)
    return (low - stretch.below * scale <= truth) & (truth <= high + stretch.above * scale)


def test_what_is_inside_of_an_interval_is_covered() -> None:
    sizes, truth = cases(60, seed=0)
    stretch = Stretch(0.2, 0.3)
    found = [size_covered(interval_of(of, stretch), float(y)) for of, y in zip(sizes, truth, strict=True)]
    assert found == inside(sizes, truth, stretch).tolist()
    assert {*found} == {0, 1}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 5000), min_size=1, max_size=12), st.integers(0, 5000))
def test_the_crps_is_half_the_squared_energy_distance_to_the_truth(sizes: list[int], truth: int) -> None:
    expected = energy_distance(np.array(sizes, float), [float(truth)]) ** 2 / 2
    assert size_crps(np.array(sizes), float(truth)) == pytest.approx(expected, abs=1e-6)


def test_the_crps_of_one_member_is_its_error() -> None:
    assert size_crps(np.array([70]), 100.0) == 30


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 900), min_size=2, max_size=30))
def test_quantiles_lie_linearly_between_sorted_sizes(sizes: list[int]) -> None:
    rank = np.array([0.05, 0.95]) * (len(sizes) - 1)
    low, high = np.interp(rank, np.arange(len(sizes)), sorted(sizes))
    assert interval_of(np.array(sizes)) == pytest.approx((np.mean(sizes), low, high))


def test_a_stretch_is_relative_to_the_mean_and_ends_at_nothing() -> None:
    sizes = np.array([80, 100, 120])
    plain = interval_of(sizes)
    wide = interval_of(sizes, Stretch(0.1, 0.2))
    assert (wide.low, wide.high) == pytest.approx((plain.low - 10, plain.high + 20))
    assert size_width(wide) == pytest.approx(size_width(plain) + 30)
    assert interval_of(sizes, Stretch(2, 0)).low == 0
    assert interval_of(np.zeros(4), Stretch(0, 3)) == (0, 0, 3)  # 3 times the pixel that a mean is at least
    narrow = interval_of(sizes, Stretch(-0.5, -0.5))
    assert narrow.low <= narrow.high  # ends that passed each other


@pytest.mark.parametrize("count", [1, 19, 20, 38, 39, 40, 137])
def test_the_fitted_ends_are_the_scores_of_their_rank(count: int) -> None:
    sizes, truth = cases(count, seed=count)
    below, above = [], []
    for of, y in zip(sizes, truth, strict=True):
        low, high = np.quantile(of, [0.05, 0.95])
        below.append((low - y) / max(of.mean(), 1))
        above.append((y - high) / max(of.mean(), 1))
    rank = min(math.ceil(round((count + 1) * 0.95, 9)), count) - 1
    expected = (sorted(below)[rank], sorted(above)[rank], 0)
    assert fit_stretch(sizes, truth) == pytest.approx(expected)
    assert fit_stretch(sizes, truth, ["", *(f"p{i}" for i in range(1, count))]) == pytest.approx(expected)


@pytest.mark.parametrize("count", [3, 5, 10, 18])
def test_of_few_cases_too_the_ends_hold_new_cases_about_as_often_as_they_say(count: int) -> None:
    """With the largest score alone, two ends of n = 5 hold 1 − 2/6 of them."""
    found = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        truth = 1000 * (1 + 0.2 * rng.standard_normal(count + 50))
        sizes = 1000 * (1 + 0.02 * rng.standard_normal((count + 50, 6)))
        stretch = fit_stretch(sizes[:count], truth[:count])
        found.append(held(sizes[count:], truth[count:], stretch))
    assert 0.87 < np.mean(found) < 0.96
    assert 1 - 2 / (count + 1) < np.mean(found)


def test_groups_of_one_case_each_are_cases() -> None:
    sizes, truth = cases(7, seed=1)
    assert fit_stretch(sizes, truth, list("abcdefg")) == pytest.approx(fit_stretch(sizes, truth))
    twice = fit_stretch(np.repeat(sizes, 2, axis=0), np.repeat(truth, 2), [*"aabbccddeeffgg"])
    assert twice == pytest.approx(fit_stretch(sizes, truth))  # a case that is there twice says nothing new


def test_new_cases_are_held_as_often_as_the_intervals_say() -> None:
    """100 cases to fit, 400 new ones, 80 times: each end leaves out 5 of 101 ranks, on average."""
    plain, fitted = [], []
    for seed in range(80):
        sizes, truth = cases(500, seed=seed)
        stretch = fit_stretch(sizes[:100], truth[:100])
        plain.append(held(sizes[100:], truth[100:], Stretch()))
        fitted.append(held(sizes[100:], truth[100:], stretch))
    assert np.mean(plain) < 0.5
    assert np.mean(fitted) == pytest.approx(1 - 2 * 5 / 101, abs=0.008)


def test_a_case_whose_members_draw_next_to_nothing_does_not_widen_the_intervals_of_others() -> None:
    """One lesion in fifteen is missed; new cases lie on a grid that is four times as fine as that of the fit."""
    found: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for seed in range(20):
        sizes, truth = cases(200, seed=seed)
        sizes[np.random.default_rng(seed).random(200) < 1 / 15] = 0
        pixels = 128 * 128
        for known, results in found.items():
            stretch = fit_stretch(sizes[:60], truth[:60], pixels=np.full(60, pixels) if known else None)
            assert stretch.least == (np.median(truth[:60]) / pixels if known else 0)
            new = [interval_of(16 * of, stretch, pixels=16 * pixels if known else None) for of in sizes[60:]]
            held = [size_covered(of, 16.0 * y) for of, y in zip(new, truth[60:], strict=True)]
            results.append((float(np.mean(held)), float(np.median([size_width(of) for of in new] / truth[60:] / 16))))
    (covered, width), (_, without) = (np.mean(of, axis=0) for of in (found[True], found[False]))
    assert covered == pytest.approx(1 - 2 * 3 / 61, abs=0.02)  # each end leaves out 3 of 61 ranks
    assert width < 3
    assert without > 50


def test_an_interval_ends_where_the_image_does() -> None:
    sizes = np.array([80, 100, 120])
    assert interval_of(sizes, Stretch(0, 50), pixels=1000).high == 1000
    assert interval_of(sizes, Stretch(0.1, 0.2, 0.5), pixels=1000)[1:] == pytest.approx((82 - 50, 118 + 100))


def test_of_a_structure_that_no_case_holds_no_usual_size_is_known() -> None:
    sizes, pixels = np.array([[0, 4], [0, 0], [2, 2]]), np.full(3, 100)
    assert fit_stretch(sizes, np.zeros(3), pixels=pixels) == fit_stretch(sizes, np.zeros(3))


def test_members_that_differ_too_much_are_narrowed() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(900, 1100, 200)
    sizes = truth[:, None] * rng.lognormal(0, 0.5, (200, 20))
    stretch = fit_stretch(sizes, truth)
    assert max(stretch.below, stretch.above) < 0
    assert held(sizes, truth, stretch) < held(sizes, truth, Stretch())


def test_new_patients_are_held_where_cases_of_a_patient_are_alike() -> None:
    """30 patients of 1 or 12 slices that err together: with each slice counted alone, the large ones would decide."""
    grouped, alone = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        counts = rng.choice([1, 12], 130)
        shift = np.repeat(rng.lognormal(0, 0.4, 130) * np.where(counts == 1, 1.6, 1), counts)
        who = np.repeat(np.arange(130), counts)
        sizes, truth = 1000 * rng.lognormal(0, 0.1, (len(who), 6)), 1000 * shift
        fit = who < 30
        for found, names in ((grouped, [f"p{i}" for i in who[fit]]), (alone, None)):
            new = inside(sizes[~fit], truth[~fit], fit_stretch(sizes[fit], truth[fit], names))
            found.append(np.mean(np.bincount(who[~fit] - 30, weights=new) / counts[30:]))  # over patients
    assert 0.89 < np.mean(grouped) < 0.96
    assert np.mean(alone) < np.mean(grouped) - 0.03


def test_cases_that_do_not_belong_together_are_refused() -> None:
    sizes, truth = cases(3, seed=0)
    with pytest.raises(ShapeError, match="Sizes are of 3 cases, true sizes of 3, groups of 2"):
        fit_stretch(sizes, truth, ["a", "b"])
    with pytest.raises(ShapeError, match="at least one"):
        fit_stretch(sizes[:0], truth[:0])
