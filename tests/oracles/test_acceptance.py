"""What is promised of unseen cases, against simulations whose truth is known, and against scikit-learn's rules."""

from __future__ import annotations

from time import process_time

import numpy as np
import pytest
from scipy.optimize import lsq_linear
from scipy.stats import beta, binomtest

from medsegdiff.errors import ShapeError
from medsegdiff.metrics.acceptance import accept, best_score, choose, least_patients, least_to_choose
from medsegdiff.metrics.conformal import conformal_quantile
from medsegdiff.metrics.predicted_dice import bound_of, cross_fitted, dealt, fit_dice_map, fit_margin


def simulated(rng: np.random.Generator, patients: int, *, each: int = 1) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Scores and Dice of cases; those of a patient are alike."""
    score = np.clip(rng.beta(8, 2, patients).repeat(each) + 0.02 * rng.standard_normal(patients * each), 0, 1)
    shift = 0.05 * rng.standard_normal(patients).repeat(each)
    dice = np.clip(1 - 0.8 * (1 - score) ** 1.3 - np.abs(shift + 0.04 * rng.standard_normal(len(score))), 0, 1)
    return score, dice, [f"p{number}" for number in np.arange(patients).repeat(each)]


def test_the_map_is_the_least_squares_fit_among_all_that_do_not_fall() -> None:
    rng = np.random.default_rng(0)
    score, dice = rng.random(30).round(1), rng.random(30)
    at = np.unique(score)
    design = (score[:, None] >= at[None]).astype(float)  # a start, and rises that are not negative
    bounds = (np.r_[-np.inf, np.zeros(len(at) - 1)], np.inf)
    solved = lsq_linear(design, dice, bounds=bounds, tol=1e-12)
    assert fit_dice_map(score, dice)(at) == pytest.approx(np.cumsum(solved.x), abs=1e-6)


def test_between_scores_it_is_linear_and_beyond_them_flat() -> None:
    learned = fit_dice_map(np.array([0.2, 0.4]), np.array([0.5, 0.9]))
    assert learned(np.array([0.0, 0.2, 0.3, 0.4, 1.0])).tolist() == pytest.approx([0.5, 0.5, 0.7, 0.9, 0.9])


def test_a_patient_counts_once() -> None:
    """Nine cases of one patient, and one of another, at the same score."""
    learned = fit_dice_map(np.full(10, 0.5), np.r_[np.full(9, 0.8), 0.4], ["a"] * 9 + ["b"])
    assert learned(np.array([0.5])) == pytest.approx(0.6)


def test_no_case_is_refused() -> None:
    with pytest.raises(ShapeError, match="0 cases"):
        fit_dice_map(np.empty(0), np.empty(0))


def test_each_patient_is_predicted_from_the_others() -> None:
    """A patient whose Dice is 0 at a score where all others have 1 is predicted 1."""
    score, dice = np.full(6, 0.5), np.r_[0.0, 0.0, np.ones(4)]
    found = cross_fitted(score, dice, ["bad", "bad", "a", "b", "c", "d"])
    assert found[:2].tolist() == [1.0, 1.0]
    assert (found[2:] < 1).all()


@pytest.mark.parametrize("each", [1, 4])
def test_bounds_hold_as_often_as_they_say_over_200_calibrations(each: int) -> None:
    held = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        score, dice, groups = simulated(rng, 60, each=each)
        learned = fit_dice_map(score, dice, groups)
        margin = fit_margin(cross_fitted(score, dice, groups), dice, groups)
        new_score, new_dice, _ = simulated(rng, 200)
        held.append((new_dice >= bound_of(learned(new_score), margin)).mean())
    assert 0.87 <= np.mean(held) <= 0.93


def test_a_bound_that_nothing_is_known_of_covers_less_without_the_margin() -> None:
    rng = np.random.default_rng(1)
    score, dice, groups = simulated(rng, 400)
    assert (dice >= bound_of(fit_dice_map(score, dice, groups)(score), 0.0)).mean() < 0.75


def test_the_bound_lies_between_0_and_1_and_below_the_prediction() -> None:
    predicted = np.linspace(0, 1, 11)
    found = bound_of(predicted, 0.8)
    assert ((found >= 0) & (found <= predicted)).all()
    assert (np.diff(found) >= 0).all()


def test_groups_of_a_quantile_weigh_the_same() -> None:
    """39 patients with one case each, and one with 1000: its cases weigh 1 together."""
    scores = np.r_[np.arange(39.0), np.full(1000, 1e6)]
    groups = [""] * 39 + ["many"] * 1000
    assert conformal_quantile(scores, groups, 0.9) == 36.0  # .9 · 41 = 36.9 of 40


def test_how_many_patients_a_promise_needs() -> None:
    assert least_patients(0.05) == 45
    assert 0.95**45 <= 0.1 < 0.95**44


def chance_of_failing(score: np.ndarray) -> np.ndarray:
    return 0.6 * (1 - score) ** 2


def true_risk(threshold: float) -> float:
    grid = np.linspace(threshold, 1, 4001)
    weights = beta(4, 2).pdf(grid)
    return float((weights * chance_of_failing(grid)).sum() / weights.sum())


def test_a_promise_is_broken_in_a_tenth_of_the_calibrations_at_most() -> None:
    broken, made = 0, 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        score = rng.beta(4, 2, 150)
        failed = rng.random(150) < chance_of_failing(score)
        found = accept(score, failed, [""] * 150, risk=0.05)
        made += found is not None
        broken += found is not None and true_risk(found.threshold) > 0.05
    assert made > 100
    assert 0 < broken <= 20


def eight_scores(rng: np.random.Generator, count: int, *, alike: float) -> dict[str, np.ndarray]:
    """Scores that tell nothing of a mask, more or less alike."""
    common = alike * rng.standard_normal(count)
    own = [common + np.sqrt(1 - alike**2) * rng.standard_normal(count) for _ in range(8)]
    return {f"score {number}": 1 / (1 + np.exp(-of)) for number, of in enumerate(own)}


@pytest.mark.parametrize("alike", [0.0, 0.6])
@pytest.mark.parametrize("patients", [80, 200])
def test_the_best_of_eight_scores_that_say_nothing_breaks_no_more_promises_than_one(
    patients: int, alike: float
) -> None:
    """5.5 % of the masks are bad whatever the score, so that each promise of 5 % is broken."""
    broken = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        dice = np.where(rng.random(patients) < 0.055, 0.5, 0.9)
        scores = eight_scores(rng, patients, alike=alike)
        broken += choose(scores, dice, [""] * patients, good=0.8, risk=0.05)[1] is not None
    assert 0 < broken <= 30


def test_of_scores_the_one_that_tells_is_chosen_and_its_promises_are_kept() -> None:
    broken, made = 0, 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        score = rng.beta(4, 2, 200)
        dice = np.where(rng.random(200) < chance_of_failing(score), 0.5, 0.9)
        scores = eight_scores(rng, 200, alike=0.6) | {"tells": score}
        best, found = choose(scores, dice, [""] * 200, good=0.8, risk=0.05)
        made += found is not None
        if found is not None and best == "tells":
            broken += true_risk(found.threshold) > 0.05
        elif found is not None:
            broken += 1  # 8.6 % of all are bad
    assert made > 30
    assert broken <= 10


@pytest.mark.parametrize("tells", [0.0, 0.5])
def test_bounds_by_the_best_of_eight_scores_hold_nearly_as_often_as_they_say(tells: float) -> None:
    """All of the cases that fit the bound may have chosen the score."""

    def drawn(rng: np.random.Generator, count: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        quality = rng.standard_normal(count)
        scores = eight_scores(rng, count, alike=0.6)
        told = {name: np.clip(of + 0.2 * tells * quality, 0, 1) for name, of in scores.items()}
        return 1 / (1 + np.exp(-1.9 - 0.7 * quality)), told

    held = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        dice, scores = drawn(rng, 45)
        best, _ = choose(scores, dice, [""] * 45, good=0.8, risk=0.05)
        margin = fit_margin(cross_fitted(scores[best], dice, [""] * 45), dice, [""] * 45)
        new_dice, new_scores = drawn(rng, 1000)
        held.append((new_dice >= bound_of(fit_dice_map(scores[best], dice)(new_scores[best]), margin)).mean())
    assert 0.88 <= np.mean(held) <= 0.92


def test_where_nothing_can_be_promised_all_choose_the_score() -> None:
    """The quarter of the patients that might have chosen alone prefers another than all."""
    groups = [f"p{number}" for number in range(59)]
    choosing = dealt(groups, folds=4) == 0
    dice = np.linspace(0.9, 1.0, 59)
    scores = {"by few": np.where(choosing, dice, 1 - dice), "by all": np.where(choosing, 1 - dice, dice)}
    assert best_score({name: of[choosing] for name, of in scores.items()}, dice[choosing]) == "by few"
    assert choose(scores, dice, groups, good=0.8, risk=0.05) == ("by all", None)


def test_sixty_patients_are_enough_to_choose_a_score_and_to_promise() -> None:
    assert least_to_choose(0.05) == 60
    for risk in (0.05, 0.1, 0.2, 0.37):
        enough = least_to_choose(risk)
        for patients, promised in ((enough - 1, False), (enough, True)):
            scores, groups = {"a": np.linspace(0, 1, patients)}, [""] * patients
            assert (choose(scores, np.ones(patients), groups, good=0.8, risk=risk)[1] is not None) == promised


def test_a_patient_with_many_failures_counts_once_and_the_rest_is_exact() -> None:
    score = np.r_[np.full(60, 0.9), np.full(10, 0.8)]
    failed = np.r_[np.zeros(60, bool), np.ones(10, bool)]
    found = accept(score, failed, [f"p{number}" for number in range(60)] + ["bad"] * 10, risk=0.1)
    assert (found.threshold, found.patients, found.failed) == (0.8, 61, 1)
    assert found.bound == pytest.approx(beta.ppf(0.9, 2, 60))


def accepted_one_by_one(score: np.ndarray, failed: np.ndarray, groups: list[str], risk: float) -> tuple | None:
    """Threshold by threshold, with SciPy's exact binomial test."""
    found = None
    for threshold in sorted(set(score), reverse=True):
        kept = score >= threshold
        patients = {group for group, one in zip(groups, kept, strict=True) if one}
        lost = {group for group, one in zip(groups, kept & failed, strict=True) if one}
        if len(patients) < least_patients(risk):
            continue
        test = binomtest(len(lost), len(patients), alternative="less")
        bound = test.proportion_ci(0.9, method="exact").high
        if bound > risk:
            break
        found = (threshold, len(patients), len(lost), bound, kept.mean())
    return found


@pytest.mark.parametrize("seed", range(12))
def test_running_counts_of_patients_are_those_of_each_threshold_by_itself(seed: int) -> None:
    """With scores that are alike, patients of several cases, and such that fail more than once."""
    rng = np.random.default_rng(seed)
    score = rng.random(120).round(2 + seed % 2)
    failed = rng.random(120) < 0.3 * (1 - score) ** 2 + (0.1 if seed < 4 else 0.0)
    groups = [f"p{number}" for number in rng.integers(0, 70, 120)]
    found = accept(score, failed, groups, risk=(0.1, 0.2, 0.3)[seed % 3])
    expected = accepted_one_by_one(score, failed, groups, (0.1, 0.2, 0.3)[seed % 3])
    assert (found is None) == (expected is None)
    if found is not None:
        assert tuple(found) == pytest.approx(expected, rel=1e-9)


def test_thirty_thousand_cases_take_no_longer_than_sorting_them() -> None:
    rng, started = np.random.default_rng(0), process_time()
    found = accept(rng.random(30_000), np.zeros(30_000, bool), [""] * 30_000, risk=0.05)
    assert found.patients == 30_000
    assert process_time() - started < 5


def test_nothing_is_promised_of_too_few() -> None:
    assert accept(np.empty(0), np.empty(0, bool), [], risk=0.05) is None
    assert accept(np.linspace(0, 1, 60), np.ones(60, bool), [""] * 60, risk=0.9) is None
    assert accept(np.linspace(0, 1, 44), np.zeros(44, bool), [""] * 44, risk=0.05) is None
    assert accept(np.linspace(0, 1, 45), np.zeros(45, bool), [""] * 45, risk=0.05).patients == 45
    assert accept(np.linspace(0, 1, 200), np.ones(200, bool), [""] * 200, risk=0.05) is None
