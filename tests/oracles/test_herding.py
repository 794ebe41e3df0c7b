"""Kernel herding against the formula written out, and against laws of masks that are known exactly."""

from __future__ import annotations

import numpy as np
import pytest

from medsegdiff.data.phantom import make_lesion
from medsegdiff.fusion.herding import herd
from medsegdiff.metrics.distribution import expected_ged


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """1 − IoU, pair by pair; 0 for two empty masks."""
    return np.array([[1 - (x & y).sum() / (x | y).sum() if (x | y).any() else 0.0 for y in b] for x in a])


@pytest.mark.parametrize("seed", range(5))
def test_each_choice_makes_the_formula_smallest(seed: int) -> None:
    """Truth: all sums anew for every candidate."""
    rng = np.random.default_rng(seed)
    masks = rng.random((14, 30)) < rng.uniform(0.05, 0.9, (14, 1))
    d = distances(masks, masks)
    chosen = herd(d, 6)
    for k in range(1, 7):
        before = chosen[: k - 1]

        def energy(j: int, before: list[int] = before, k: int = k) -> float:
            those = [*before, j]
            return 2 * sum(d[s].mean() for s in those) / k - sum(d[s, other] for s in those for other in those) / k**2

        left = [j for j in range(14) if j not in before]
        assert energy(chosen[k - 1]) == pytest.approx(min(energy(j) for j in left), abs=1e-12)


def test_the_first_is_nearest_to_all_and_all_are_chosen_in_the_end() -> None:
    masks = np.tri(9, 40, 12, dtype=bool)  # nested, each a pixel larger
    d = distances(masks, masks)
    assert herd(d, 1) == [int(d.sum(axis=1).argmin())]
    assert sorted(herd(d, 9)) == list(range(9))
    assert herd(d, 20) == herd(d, 9)
    assert sorted(herd(np.zeros((5, 5)), 5)) == list(range(5))  # alike, but none of them twice


def test_ten_of_a_hundred_stand_for_the_law_much_better_than_ten() -> None:
    """GED² against the law itself: of ten draws it is μ/10 on average, of those chosen a third of it at most."""
    rng = np.random.default_rng(0)
    drawn, chosen, expected = [], [], []
    for seed in range(40):
        atoms, weights = make_lesion(48, seed).distribution()
        d = distances(atoms, atoms)
        candidates = rng.choice(4, size=100, p=weights)
        best = candidates[herd(d[np.ix_(candidates, candidates)], 10)]
        shares = np.stack([np.bincount(best, minlength=4), *rng.multinomial(10, weights, size=500)]) / 10
        ged = -np.einsum("na,ab,nb->n", shares - weights, d, shares - weights)  # of a set and its law, all pairs
        chosen.append(ged[0])
        drawn.append(ged[1:].mean())
        expected.append(expected_ged(atoms, weights, num_samples=10, num_raters=10**9))
    assert np.mean(drawn) == pytest.approx(np.mean(expected), rel=0.05)
    assert np.mean(chosen) < np.mean(drawn) / 3
    assert min(chosen) > -1e-12
