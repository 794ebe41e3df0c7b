"""How unusual numbers are, against counting and against scipy's way of joining tests."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pydantic import TypeAdapter
from scipy.stats import combine_pvalues

from medsegdiff.metrics.tails import MOST, Tail, together


def test_a_share_is_that_of_the_numbers_that_are_at_least_as_large() -> None:
    seen = np.random.default_rng(0).integers(0, 9, 60).astype(float)
    tail = Tail.of(seen)
    for value in (-1.0, 0.0, 3.0, 3.5, 8.0):
        assert tail.share(value) == pytest.approx((1 + (seen >= value).sum()) / 61)


def test_numbers_beyond_all_keep_their_order() -> None:
    tail = Tail.of([1.0, 2.0])
    shares = [tail.share(value) for value in (2.0, 2.1, 4.0, 1e9, float("inf"))]
    assert shares == sorted(shares, reverse=True)
    assert len({*shares}) == 5
    assert shares[-1] == 0


def test_beyond_all_an_exponential_tail_goes_on_as_it_is() -> None:
    tail = Tail.of(np.random.default_rng(0).exponential(3.0, 4000))
    for value in (30.0, 45.0, 60.0):
        assert np.log(tail.share(value)) == pytest.approx(-value / 3.0, rel=0.15)


@pytest.mark.parametrize("seen", [[0.0, 0.0, 0.0], [5.0], [-2.0, -2.0]])
def test_numbers_that_are_all_the_same_have_a_tail_too(seen: list[float]) -> None:
    tail = Tail.of(seen)
    assert 0 < tail.share(seen[-1] + 0.1) < tail.share(seen[-1]) == 1


@pytest.mark.parametrize("count", [101, 500, 5000])
def test_of_many_numbers_the_largest_are_counted_one_by_one(count: int) -> None:
    seen = np.sort(np.random.default_rng(0).lognormal(sigma=2, size=count))
    tail = Tail.of(seen)
    for place in range(1, MOST // 2 + 1):
        for value in (seen[-place], (seen[-place] + seen[-place - 1]) / 2):
            assert tail.share(value) == pytest.approx((1 + (seen >= value).sum()) / (count + 1))
    shares = np.array([tail.share(value) for value in seen])
    assert shares == pytest.approx((1 + np.arange(count, 0, -1)) / (count + 1), abs=0.02)


def test_of_quantiles_that_an_earlier_version_kept_ranks_are_read_between_them() -> None:
    """They were evenly spread over all ranks: the largest hundredth had the share of the hundredth."""
    seen = np.random.default_rng(0).random(2000)
    tail = TypeAdapter(Tail).validate_json(json.dumps([np.quantile(seen, np.linspace(0, 1, 100)).tolist(), 2000]))
    for value in np.quantile(seen, [0.5, 0.9, 0.99, 0.995, 0.999]):
        assert tail.share(value) == pytest.approx((1 + (seen >= value).sum()) / 2001, abs=0.002)


def test_of_many_numbers_quantiles_do() -> None:
    seen = np.random.default_rng(0).normal(size=5000)
    tail = Tail.of(seen)
    assert len(tail.values) == MOST
    for value in (-2.0, 0.0, 2.0):
        assert tail.share(value) == pytest.approx((seen >= value).mean(), abs=0.02)
    assert tail.quantile(0.99) == pytest.approx(np.quantile(seen, 0.99), abs=0.1)


@pytest.mark.parametrize("shares", [(0.3, 0.2), (0.01, 1.0), (0.5,), (0.1, 0.4, 0.9)])
def test_shares_are_joined_as_fisher_does(shares: tuple[float, ...]) -> None:
    assert together(*shares) == pytest.approx(combine_pvalues(shares, method="fisher").pvalue)


def test_shares_of_independent_numbers_are_even_together() -> None:
    rng = np.random.default_rng(0)
    joined = [together(*pair) for pair in rng.random((4000, 2))]
    assert np.quantile(joined, [0.1, 0.5, 0.9]) == pytest.approx([0.1, 0.5, 0.9], abs=0.03)
