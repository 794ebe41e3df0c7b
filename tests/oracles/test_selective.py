"""Risk and Dice against coverage: removed pixel by pixel, averaged over all orders, and where the ideal is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from medsegdiff.metrics.overlap import dice
from medsegdiff.metrics.selective import Selection, aurc, excess_aurc, risk_coverage, spearman


def drawn(seed: int, shape: tuple[int, ...] = (7, 6)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give uncertainties with ties in the middles of 16 bins, a prediction, and a reference."""
    rng = np.random.default_rng(seed)
    u = (rng.integers(0, 16, shape) + 0.5) / 16
    prediction = rng.random(shape) < 0.5
    return u, prediction, prediction ^ (rng.random(shape) < u / 2)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9999))
def test_curves_are_those_of_pixels_removed_one_threshold_after_another(seed: int) -> None:
    u, p, r = drawn(seed)
    risk, kept_dice = risk_coverage(u, p != r), Selection.empty(16).add(u, p, r).dice_coverage()
    referred = Selection.empty(16).add(u, p, r).dice_coverage(referred=True)
    levels = np.unique(u)
    assert len(risk.coverage) == len(kept_dice.coverage) == len(levels)
    for i, level in enumerate(levels):
        keep = u <= level
        assert risk.coverage[i] == kept_dice.coverage[i] == referred.coverage[i] == pytest.approx(keep.mean())
        assert risk.value[i] == pytest.approx((p != r)[keep].mean())
        assert kept_dice.value[i] == pytest.approx(dice(p & keep, r & keep))
        assert referred.value[i] == pytest.approx(dice(np.where(keep, p, r), r))
    assert kept_dice.value[-1] == referred.value[-1] == pytest.approx(dice(p, r))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9999))
def test_bins_and_sorting_give_the_same_curve(seed: int) -> None:
    u, p, r = drawn(seed)
    binned, sorted_ = Selection.empty(16).add(u, p, r).risk_coverage(), risk_coverage(u, p != r)
    assert binned.coverage == pytest.approx(sorted_.coverage)
    assert binned.value == pytest.approx(sorted_.value)


def test_many_bins_are_as_good_as_sorting() -> None:
    rng = np.random.default_rng(0)
    u = rng.random((300, 300)) ** 2 / 2
    p = rng.random(u.shape) < 0.5
    r = p ^ (rng.random(u.shape) < u)
    binned = Selection.empty(highest=0.5).add(u.astype(np.float32), p, r).risk_coverage()
    assert aurc(binned) == pytest.approx(aurc(risk_coverage(u, p != r)), abs=2e-4)
    assert len(binned.coverage) > 900


def mean_over_orders(u: np.ndarray, wrong: np.ndarray, fine: int) -> float:
    """Average the area over all orders of equally uncertain pixels, each pixel cut into many."""
    groups = [wrong[u == level] for level in np.unique(u)]
    areas = []
    for order in itertools.product(*(itertools.permutations(g) for g in groups)):
        flat = np.concatenate(order).astype(float).repeat(fine)
        areas.append((flat.cumsum() / np.arange(1, len(flat) + 1)).mean())
    return float(np.mean(areas))


def test_area_is_the_mean_over_the_orders_of_ties() -> None:
    """With ties the expected risk is that of errors spread evenly; many pixels make the sum an integral."""
    u = np.array([0.1, 0.1, 0.1, 0.5, 0.5, 0.9, 0.9])
    wrong = np.array([0, 1, 0, 1, 0, 1, 1], bool)
    spread = np.concatenate([np.full(4000 * n, e / n) for n, e in ((3, 1), (2, 1), (2, 2))])
    numeric = (spread.cumsum() / np.arange(1, len(spread) + 1)).mean()
    assert aurc(risk_coverage(u, wrong)) == pytest.approx(numeric, abs=1e-4)
    assert aurc(risk_coverage(u, wrong)) == pytest.approx(mean_over_orders(u, wrong, 200), abs=0.02)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9999))
def test_area_of_sorted_pixels_is_the_mean_risk(seed: int) -> None:
    rng = np.random.default_rng(seed)
    u, wrong = rng.random(5000), rng.random(5000) < rng.random()
    order = np.argsort(u)
    by_sum = (wrong[order].cumsum() / np.arange(1, 5001)).mean()
    assert aurc(risk_coverage(u, wrong)) == pytest.approx(by_sum, abs=0.01)


@pytest.mark.parametrize("e", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_ideal_useless_and_perverse_uncertainty(e: float) -> None:
    wrong = np.arange(1000) < 1000 * e
    assert excess_aurc(risk_coverage(wrong.astype(float), wrong)) == pytest.approx(0, abs=1e-12)
    assert aurc(risk_coverage(np.ones(1000), wrong)) == pytest.approx(e)
    perverse, useless = (excess_aurc(risk_coverage(u, wrong)) for u in (1.0 - wrong, np.ones(1000)))
    assert perverse >= useless >= -1e-12
    if 0 < e < 1:
        # errors first: risk 1 up to coverage e, then e / c
        assert aurc(risk_coverage(1.0 - wrong, wrong)) == pytest.approx(e - e * np.log(e))
        assert perverse > useless > 0
        ideal = 1000 * e  # Σ over single pixels as in the source, a sum instead of an integral
        kept = np.arange(1, 1001)
        by_sum = (np.maximum(kept - (1000 - ideal), 0) / kept).mean()
        assert aurc(risk_coverage(wrong.astype(float), wrong)) == pytest.approx(by_sum, abs=1e-3)


def test_dice_rises_where_uncertainty_points_at_errors() -> None:
    rng = np.random.default_rng(0)
    reference = np.zeros((40, 40), bool)
    reference[10:30, 10:30] = True
    wrong = np.zeros((40, 40), bool)
    wrong[28:34, 8:32] = True
    u = np.where(wrong, 0.8, 0.1) + rng.random((40, 40)) * 0.1
    for referred in (False, True):
        curve = Selection.empty().add(u, reference ^ wrong, reference).dice_coverage(referred=referred)
        assert curve.value[-1] == pytest.approx(dice(reference ^ wrong, reference))
        assert curve.value[curve.coverage <= 1 - wrong.mean()] == pytest.approx(1)
        assert curve.value[-1] < 0.9


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9999))
def test_cases_pooled_equal_their_pixels_together(seed: int) -> None:
    one, two = drawn(seed), drawn(seed + 1, (3, 4, 5))
    flat = [np.concatenate([a.ravel(), b.ravel()]) for a, b in zip(one, two, strict=True)]
    together = Selection.empty(64).add(*flat)
    for pooled in (
        Selection.empty(64).add(*one).add(*two),
        Selection.empty(64).add(*one) + Selection.empty(64).add(*two),
    ):
        for name in ("pixels", "prediction", "reference", "both"):
            assert getattr(pooled, name) == pytest.approx(getattr(together, name))


def test_slabs_make_no_difference() -> None:
    case = drawn(0)
    whole = Selection.empty(16).add(*case)
    cut = Selection.empty(16).add(*case, slab=5)
    assert all(np.array_equal(getattr(cut, name), getattr(whole, name)) for name in ("pixels", "both", "reference"))


def test_certain_pixels_and_the_highest_uncertainty_have_bins() -> None:
    u, p = np.array([0.0, 0.0, 0.5, 0.5]), np.array([True, False, True, False])
    curve = Selection.empty(8, highest=0.5).add(u, p, np.array([True, False, False, False])).risk_coverage()
    assert curve.coverage == pytest.approx([0.5, 1])
    assert curve.value == pytest.approx([0, 0.25])
    flat = Selection.empty(8).add(np.zeros(4), p, ~p).risk_coverage()
    assert (flat.coverage.tolist(), flat.value.tolist(), aurc(flat)) == ([1], [1], 1)


@pytest.mark.parametrize("wrong", [-0.1, 0.6, float("nan")])
def test_uncertainty_out_of_range_is_refused(wrong: float) -> None:
    _, p, r = drawn(0)
    with pytest.raises(ValueError, match="expected 0 to 0.5; give its 'highest'"):
        Selection.empty(8, highest=0.5).add(np.where(p, wrong, 0.2), p, r)
    with pytest.raises(ValueError, match="can't be pooled"):
        Selection.empty(8, highest=0.5) + Selection.empty(8)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9999), st.integers(3, 30))
def test_rank_correlation_equals_scipys(seed: int, number: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 8, number).astype(float), rng.normal(size=number)
    if np.ptp(a):
        assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)
        assert spearman(np.exp(a), b**3) == pytest.approx(spearman(a, b))


def test_rank_correlation_of_order_and_of_constants() -> None:
    a = np.array([0.1, 0.4, 0.2])
    assert (spearman(a, a**2), spearman(a, -a)) == pytest.approx((1, -1))
    assert np.isnan([spearman(a, np.ones(3)), spearman(np.ones(3), a), spearman(a[:1], a[:1])]).all()
