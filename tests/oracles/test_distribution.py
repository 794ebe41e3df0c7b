"""Ensembles against raters: sums over pairs by hand, all permutations, simulated raters of a known distribution."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medsegdiff.config.data import DataConfig
from medsegdiff.data.phantom import PhantomSource, make_lesion
from medsegdiff.demo import perfect_sampler
from medsegdiff.errors import ShapeError
from medsegdiff.metrics.comparison import Comparison
from medsegdiff.metrics.distribution import (
    agreement,
    d_max,
    distribution_scores,
    expected_ged,
    ged,
    hm_iou,
    rater_dice,
)
from medsegdiff.metrics.overlap import dice, iou
from medsegdiff.metrics.pairs import check_sets, intersections


def masks(seed: int, number: int, shape: tuple[int, ...] = (5, 4), share: float = 0.4) -> np.ndarray:
    return np.random.default_rng(seed).random((number, *shape)) < share


def brute_ged(samples: np.ndarray, raters: np.ndarray, *, distinct: bool = False) -> float:
    def mean(a: np.ndarray, b: np.ndarray, *, alike: bool) -> float:
        places = itertools.product(range(len(a)), range(len(b)))
        return float(np.mean([1 - iou(a[i], b[j]) for i, j in places if not (distinct and alike and i == j)]))

    within = mean(samples, samples, alike=True) + mean(raters, raters, alike=True)
    return 2 * mean(samples, raters, alike=False) - within


sets = st.tuples(st.integers(0, 9999), st.integers(2, 5), st.integers(2, 4), st.sampled_from([0.0, 0.05, 0.4, 0.9]))


@settings(max_examples=40, deadline=None)
@given(sets)
def test_every_number_equals_brute_force(drawn: tuple[int, int, int, float]) -> None:
    seed, m, r, share = drawn
    s, t = masks(seed, m, share=share), masks(seed + 1, r, share=share)
    assert ged(s, t).value == pytest.approx(brute_ged(s, t), abs=1e-12)
    assert ged(s, t, distinct=True).value == pytest.approx(brute_ged(s, t, distinct=True), abs=1e-12)
    by_hand = np.array([[dice(a, b) for b in t] for a in s])
    assert rater_dice(s, t) == pytest.approx(by_hand)
    assert d_max(s, t) == pytest.approx(np.mean([max(by_hand[:, j]) for j in range(r)]))
    assert agreement(s) == pytest.approx(np.mean([dice(a, b) for a, b in itertools.combinations(s, 2)]))
    together = distribution_scores(s, t)
    alone = {"ged": ged(s, t).value, "hm_iou": hm_iou(s, t), "d_max": d_max(s, t), "agreement": agreement(s)}
    assert together == pytest.approx(alone | {"rater_dice": float(by_hand.mean())}, abs=1e-12)


@pytest.mark.parametrize("distinct", [False, True])
def test_ged_of_one_member_and_one_rater_is_twice_their_distance(distinct: bool) -> None:
    a, b = masks(0, 1), masks(1, 1)
    if distinct:
        with pytest.raises(ShapeError, match="two of each"):
            ged(a, b, distinct=True)
    else:
        assert ged(a, b).value == pytest.approx(2 * (1 - iou(a[0], b[0])))


@settings(max_examples=30, deadline=None)
@given(sets)
def test_ged_of_a_set_with_itself_is_zero_and_never_below(drawn: tuple[int, int, int, float]) -> None:
    seed, m, r, share = drawn
    s, t = masks(seed, m, share=share), masks(seed + 1, r, share=share)
    assert ged(s, s).value == pytest.approx(0, abs=1e-12)
    assert ged(s, np.concatenate([s, s])[::-1]).value == pytest.approx(0, abs=1e-12)
    assert -1e-12 <= ged(s, t).value <= 2
    assert ged(s, t).value == pytest.approx(ged(t, s).value)


def test_ged_of_disjoint_sets() -> None:
    """Identical members against identical raters elsewhere: 2. If the raters differ, their distance is taken off."""
    cells = np.eye(6, dtype=bool).reshape(6, 2, 3)
    assert ged(cells[[0] * 4], cells[[1] * 3]).value == 2
    got = ged(cells[[0] * 4], cells[[1, 2, 3]])
    assert (got.between, got.within_samples, got.within_raters) == pytest.approx((1, 0, 2 / 3))
    assert got.value == pytest.approx(2 - 2 / 3)
    assert ged(cells[[0] * 4], cells[[1, 2, 3]], distinct=True).value == pytest.approx(1)
    assert (got.num_samples, got.num_raters) == (4, 3)
    assert d_max(cells[[0]], cells[1:]) == hm_iou(cells[[0]], cells[1:]) == 0


def test_identical_members_agree_and_count_as_one() -> None:
    one, raters = masks(0, 1), masks(1, 4)
    many = one.repeat(7, axis=0)
    assert agreement(many) == agreement(one) == 1
    assert ged(many, raters).value == pytest.approx(ged(one, raters).value)
    assert ged(many, raters).within_samples == 0
    assert (hm_iou(many, raters), d_max(many, raters)) == pytest.approx((hm_iou(one, raters), d_max(one, raters)))


def test_empty_masks_are_at_no_distance_from_each_other() -> None:
    none, some = np.zeros((3, 4, 4), bool), np.ones((2, 4, 4), bool)
    assert ged(none, none[:2]).value == 0
    assert ged(none, some).value == 2
    assert (hm_iou(none, none), d_max(none, none[:1]), agreement(none)) == (1, 1, 1)
    assert (hm_iou(none, some), d_max(none, some)) == (0, 0)


@pytest.mark.parametrize(("m", "r"), [(3, 3), (2, 4), (3, 2), (1, 4), (4, 6)])
def test_matching_equals_the_best_of_all_permutations(m: int, r: int) -> None:
    s, t = masks(m, m), masks(r + 10, r)
    size = np.lcm(m, r)
    if size <= 6:
        table = np.array([[iou(s[i % m], t[j % r]) for j in range(size)] for i in range(size)])
        best = max(np.mean([table[i, j] for i, j in enumerate(order)]) for order in itertools.permutations(range(size)))
        assert hm_iou(s, t) == pytest.approx(best)
    assert hm_iou(s, t) == pytest.approx(transport(s, t))


def transport(s: np.ndarray, t: np.ndarray) -> float:
    """Solve the same problem as a linear programme: each member sends 1/m, each rater receives 1/r."""
    from scipy.optimize import linprog

    m, r = len(s), len(t)
    worth = np.array([[iou(a, b) for b in t] for a in s])
    rows = [np.eye(m)[i][:, None] * np.ones(r) for i in range(m)] + [
        np.ones(m)[:, None] * np.eye(r)[j] for j in range(r)
    ]
    return -linprog(-worth.ravel(), A_eq=[row.ravel() for row in rows], b_eq=[1 / m] * m + [1 / r] * r).fun


@settings(max_examples=30, deadline=None)
@given(sets, st.randoms(use_true_random=False))
def test_order_makes_no_difference(drawn: tuple[int, int, int, float], random: object) -> None:
    seed, m, r, share = drawn
    s, t = masks(seed, m, share=share), masks(seed + 1, r, share=share)
    i, j = list(range(m)), list(range(r))
    random.shuffle(i), random.shuffle(j)
    assert distribution_scores(s[i], t[j]) == pytest.approx(distribution_scores(s, t), abs=1e-12)
    assert hm_iou(s, t) == pytest.approx(hm_iou(t, s))
    assert hm_iou(s, s[i]) == 1


@pytest.mark.parametrize(("m", "r"), [(1, 1), (4, 5), (16, 4)])
def test_expected_ged_is_that_of_simulated_members_and_raters(m: int, r: int) -> None:
    lesion = make_lesion(32, 3)
    known, weights = lesion.distribution()
    rng, runs = np.random.default_rng(0), 3000
    table = Comparison.of(known, known)  # GED needs but the masks' numbers: draw these, and look distances up
    seen = []
    for _ in range(runs):
        places = np.concatenate([rng.choice(len(known), size=n, p=weights) for n in (m, r)])
        seen.append(Comparison(table.common[np.ix_(places, places)], m).ged().value)
    expected = expected_ged(known, weights, num_samples=m, num_raters=r)
    assert np.mean(seen) == pytest.approx(expected, abs=4 * np.std(seen) / runs**0.5)
    assert 4 * np.std(seen) / runs**0.5 < 0.1 * expected
    drawn = known[places[:m]], known[places[m:]]
    assert ged(*drawn).value == pytest.approx(seen[-1])


def test_ged_over_distinct_pairs_of_a_perfect_sampler_is_zero_on_average() -> None:
    lesion = make_lesion(32, 5)
    known, weights = lesion.distribution()
    rng = np.random.default_rng(1)
    seen = [ged(*(known[rng.choice(4, size=n, p=weights)] for n in (4, 5)), distinct=True).value for _ in range(800)]
    assert np.mean(seen) == pytest.approx(0, abs=4 * np.std(seen) / 800**0.5)
    assert min(seen) < 0


def test_a_sampler_without_spread_is_worse_than_the_perfect_one() -> None:
    lesion = make_lesion(32, 3)
    known, weights = lesion.distribution()
    raters = known[np.random.default_rng(0).choice(4, size=200, p=weights)]
    fixed = (lesion.probability() > 0.5)[None].repeat(200, axis=0)
    assert ged(fixed, raters).value > 5 * expected_ged(known, weights, num_samples=200, num_raters=200)


def test_slabs_make_no_difference() -> None:
    a, b = masks(0, 5, (7, 6, 5)), masks(1, 3, (7, 6, 5))
    whole = intersections(a, b)
    assert whole == pytest.approx(np.array([[(x & y).sum() for y in b] for x in a]))
    for slab in (1, 8, 100):
        assert np.array_equal(intersections(a, b, slab=slab), whole)


def test_sets_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ShapeError, match="same grid"):
        check_sets(masks(0, 2), masks(0, 2, (4, 5)))
    for of in (ged, hm_iou, d_max, rater_dice):
        with pytest.raises(ShapeError, match="at least one"):
            of(masks(0, 0), masks(0, 2))


@settings(max_examples=40, deadline=None)
@given(sets)
def test_mean_iou_is_at_least_what_mean_dice_demands(drawn: tuple[int, int, int, float]) -> None:
    """Per case IoU = Dice / (2 − Dice), which is convex: over cases the mean can only be larger."""
    seed, m, r, share = drawn
    s, t = masks(seed, m * r, share=share), masks(seed + 1, m * r, share=share)
    both = np.array([(dice(a, b), iou(a, b)) for a, b in zip(s, t, strict=True)])
    assert both[:, 1] == pytest.approx(both[:, 0] / (2 - both[:, 0]))
    mean_dice, mean_iou = both.mean(axis=0)
    assert mean_iou >= mean_dice / (2 - mean_dice) - 1e-12


def test_an_ensemble_drawn_as_the_raters_draw_scores_what_is_expected_of_a_perfect_sampler() -> None:
    """Simulated members and raters of the phantom, 400 cases: the mean GED² and agreement come out as worked out."""
    source = PhantomSource(DataConfig(image_size=32), counts=(400, 1, 1))
    names = list(source.info.split)[:400]
    found = []
    for index, name in enumerate(names):
        masks, weights = source.lesion(name).distribution()
        rng = np.random.default_rng(index)
        members, raters = (masks[rng.choice(4, size=size, p=weights)] for size in (10, 5))
        found.append((ged(members, raters).value, agreement(members)))
    expected = perfect_sampler(source, names, members=10)
    assert np.mean([value for value, _ in found]) == pytest.approx(expected["ged"], rel=0.05)
    assert np.mean([value for _, value in found]) == pytest.approx(expected["agreement"], rel=0.02)
