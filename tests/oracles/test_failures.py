"""Risk over cases against brute force, and against all orders that ties may have."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from medsegdiff.errors import ShapeError
from medsegdiff.metrics.failures import aurc_of_cases, by_chance, failure_scores, risk_of_kept


def brute(order: np.ndarray) -> float:
    """Of risks as they come: each number of cases kept by itself."""
    return sum(sum(order[:kept]) / kept for kept in range(1, len(order) + 1)) / len(order)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 40))
def test_the_area_is_the_mean_over_all_coverages(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    doubt, risk = rng.normal(size=count), rng.random(count)
    assert aurc_of_cases(doubt, risk) == pytest.approx(brute(risk[np.argsort(doubt)]))
    if count > 1:
        found = failure_scores(doubt, risk)
        assert found["spearman"] == pytest.approx(spearmanr(doubt, risk).statistic)
        assert found["excess_aurc"] == pytest.approx(found["aurc"] - brute(np.sort(risk)))
        assert found["excess_aurc"] >= -1e-12


def test_cases_doubted_alike_have_the_mean_over_their_orders() -> None:
    doubt, risk = np.array([2.0, 1.0, 2.0, 0.0, 2.0, 1.0]), np.array([0.9, 0.3, 0.1, 0.2, 0.5, 0.7])
    orders = [order for order in itertools.permutations(range(6)) if (np.diff(doubt[list(order)]) >= 0).all()]
    assert len(orders) == 12
    assert aurc_of_cases(doubt, risk) == pytest.approx(np.mean([brute(risk[list(order)]) for order in orders]))


def test_by_chance_is_the_mean_over_all_orders() -> None:
    risk = np.array([0.9, 0.3, 0.1, 0.2, 0.5])
    mean = np.mean([brute(np.array(order)) for order in itertools.permutations(risk)])
    assert by_chance(risk) == pytest.approx({"spearman": 0.0, "aurc": mean, "excess_aurc": mean - brute(np.sort(risk))})
    assert mean == pytest.approx(risk.mean())


def test_the_risk_itself_is_the_best_doubt_and_its_opposite_the_worst() -> None:
    risk = np.random.default_rng(0).random(30)
    assert failure_scores(risk, risk) == pytest.approx({"spearman": 1, "aurc": brute(np.sort(risk)), "excess_aurc": 0})
    areas = [aurc_of_cases(doubt, risk) for doubt in (risk, np.zeros(30), -risk)]
    assert areas == sorted(areas)
    assert risk_of_kept(-risk, risk)[[0, -1]] == pytest.approx((risk.max(), risk.mean()))


def test_of_no_case_there_is_nothing_to_say() -> None:
    with pytest.raises(ShapeError, match="at least one"):
        risk_of_kept(np.zeros(0), np.zeros(0))
