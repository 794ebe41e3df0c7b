"""The curve of Dice against the number of members: from tables of votes, as from every pixel."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from medsegdiff.errors import ConfigError, DataError, ShapeError
from medsegdiff.fusion import vote_table as votes_module
from medsegdiff.fusion.curve import (
    GRID,
    Curve,
    convergence,
    draw_subsets,
    ensemble_curve,
    pool,
    score_subsets,
    sizes,
)
from medsegdiff.fusion.fusers import FUSERS
from medsegdiff.fusion.staple import binary_staple, multi_label_staple
from medsegdiff.fusion.vote_table import tables_of, tabulate
from medsegdiff.io.atomic import make_room
from medsegdiff.metrics.overlap import dice
from tests.makers import disc

FUSIONS = ("staple", "majority", "mean")


def raters(
    num: int, structures: int, *, seed: int = 0, size: tuple[int, int] = (20, 24)
) -> tuple[np.ndarray, np.ndarray]:
    """Members (m k h w) that err each in their own way, and the reference (k h w)."""
    rng = np.random.default_rng(seed)
    truth = np.stack([disc(size, (6 + 7 * k, 9), 5 - k) for k in range(structures)])
    noise = rng.random((num, *truth.shape)) < rng.uniform(0.02, 0.3, (num, 1, 1, 1))
    return truth[None] ^ noise, truth


def apart(masks: np.ndarray) -> np.ndarray:
    """Let no pixel have two structures: the later ones win."""
    later = np.cumsum(masks[..., ::-1, :, :], axis=-3)[..., ::-1, :, :] - masks
    return masks & (later == 0)


def with_background(masks: np.ndarray) -> np.ndarray:
    return np.concatenate([~masks.any(axis=-3, keepdims=True), masks], axis=-3)


def by_every_pixel(members: np.ndarray, truth: np.ndarray, fusion: str, *, exclusive: bool) -> float:
    """What `segment` and `evaluate` do: fuse all pixels, score each structure."""
    samples = torch.from_numpy(with_background(members) if exclusive else members).float()[:, None]
    probability = FUSERS[fusion].factory(samples, exclusive=exclusive).probability[0].numpy()
    masks = probability >= 0.5
    if exclusive:
        masks = np.arange(1, len(probability))[:, None, None] == probability.argmax(axis=0)
    return float(np.mean([dice(p, r) for p, r in zip(masks, truth, strict=True)]))


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize(("structures", "exclusive"), [(1, False), (2, False), (1, True), (2, True)])
def test_every_subset_scores_as_if_all_pixels_were_fused(fusion: str, structures: int, exclusive: bool) -> None:
    members, truth = raters(5, structures)
    members, truth = (apart(members), apart(truth)) if exclusive else (members, truth)
    subsets = {n: np.array(list(itertools.combinations(range(5), n))) for n in range(1, 6)}
    scores = score_subsets(tables_of(members, truth, exclusive=exclusive), subsets, fusion=fusion)
    for size, rows in subsets.items():
        expected = [by_every_pixel(members[row], truth, fusion, exclusive=exclusive) for row in rows]
        assert scores[size] == pytest.approx(expected, abs=1e-12)
    assert len({round(value, 6) for values in scores.values() for value in values}) > 10


def test_a_curve_is_the_mean_over_cases_and_then_over_draws() -> None:
    cases = [raters(5, 1, seed=seed) for seed in (1, 2, 3)]
    curve = ensemble_curve(cases, fusion="majority", repeats=4, seed=7)
    subsets = draw_subsets(5, range(1, 6), repeats=4, seed=7)
    assert curve.num_members.tolist() == [1, 2, 3, 4, 5]
    for index, rows in enumerate(subsets.values()):
        table = [[by_every_pixel(m[row], t, "majority", exclusive=False) for row in rows] for m, t in cases]
        assert curve.mean[index] == pytest.approx(np.mean(table))
        assert curve.spread[index] == pytest.approx(np.std(np.mean(table, axis=0)))
    assert (curve.num_cases, curve.spread[-1]) == (3, 0)
    assert curve.at(5) == curve.mean[-1] > curve.mean[0]
    assert curve.at(6) is None


def test_many_members_of_a_large_ensemble_keep_apart() -> None:
    """More than 62 votes do not fit into one integer."""
    members, truth = raters(90, 1)
    (table,) = tables_of(members, truth, exclusive=False)
    subset = np.arange(5, 85)
    expected = by_every_pixel(members[subset], truth, "staple", exclusive=False)
    assert score_subsets([table], {80: subset[None]}, fusion="staple")[80] == pytest.approx([expected])


def test_a_table_does_not_depend_on_the_parts_in_which_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    labels = make_room((5, 7, 6, 8), np.dtype(np.uint8), outer=2)  # as members of a volume lie in a file
    labels[...] = rng.integers(0, 3, labels.shape)
    reference, known = rng.random((2, 7, 6, 8)) > 0.5, rng.random((7, 6, 8)) > 0.2
    whole = tabulate(labels, reference, known=known, exclusive=True)
    monkeypatch.setattr(votes_module, "SLAB", 60)
    parts = tabulate(labels, reference, known=known, exclusive=True)
    for name in ("labels", "pixels", "scored", "truth"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name)), name
    assert len(whole.pixels) < labels[0].size == whole.pixels.sum()
    assert whole.scored.sum() == known.sum()
    assert whole.truth.sum(axis=1).tolist() == (reference & known).sum(axis=(1, 2, 3)).tolist()


def test_pixels_that_nobody_labelled_are_fused_but_not_scored() -> None:
    members, truth = raters(5, 1)
    known = np.random.default_rng(1).random(truth.shape[1:]) > 0.4
    table = tabulate(members[:, 0].view(np.uint8), truth, known=known, exclusive=False)
    samples = torch.from_numpy(members).float()[:, None]
    mask = FUSERS["staple"].factory(samples, exclusive=False).probability[0, 0].numpy() >= 0.5
    found = score_subsets([table], {5: np.arange(5)[None]}, fusion="staple")[5]
    assert found == pytest.approx([dice(mask & known, truth[0] & known)])


@pytest.mark.parametrize(("member", "reference", "expected"), [(0, 0, 1.0), (1, 0, 0.0), (0, 1, 0.0), (1, 1, 1.0)])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_empty_masks_score_as_the_metric_says(fusion: str, member: int, reference: int, expected: float) -> None:
    members, truth = np.full((3, 1, 4, 4), bool(member)), np.full((1, 4, 4), bool(reference))
    assert ensemble_curve([(members, truth)], fusion=fusion).mean.tolist() == [expected] * 3


def test_weighted_columns_are_repeated_pixels() -> None:
    rng = np.random.default_rng(3)
    votes, weight = rng.integers(0, 3, (4, 30)), rng.integers(1, 9, 30)
    long = votes.repeat(weight, axis=1)
    for estimate, full in (
        (binary_staple(votes.clip(max=1), weight=weight.astype(float)), binary_staple(long.clip(max=1))),
        (multi_label_staple(votes, 3, weight=weight.astype(float)), multi_label_staple(long, 3)),
    ):
        assert np.allclose(estimate.posterior.repeat(weight, axis=1), full.posterior, rtol=1e-5)
        assert np.allclose(estimate.sensitivity, full.sensitivity)
        assert np.allclose(estimate.specificity, full.specificity)


def test_subsets_are_drawn_without_replacement_and_evenly() -> None:
    subsets = draw_subsets(10, (1, 4, 10), repeats=2000, seed=0)
    assert {size: rows.shape for size, rows in subsets.items()} == {1: (2000, 1), 4: (2000, 4), 10: (1, 10)}
    assert all(len(set(row)) == 4 for row in subsets[4].tolist())
    share = np.bincount(subsets[4].ravel(), minlength=10) / 2000
    assert share == pytest.approx(np.full(10, 0.4), abs=0.05)
    alone = draw_subsets(10, (4,), repeats=2000, seed=0)[4]
    assert np.array_equal(alone, subsets[4])
    assert not np.array_equal(alone, draw_subsets(10, (4,), repeats=2000, seed=1)[4])


def test_staple_looks_at_some_sizes_and_votes_at_all() -> None:
    assert sizes(100, "staple") == GRID
    assert sizes(22, "staple") == (*range(1, 11), 12, 15, 20, 22)
    assert sizes(1, "staple") == sizes(1, "mean") == (1,)
    assert sizes(30, "majority") == tuple(range(1, 31))
    with pytest.raises(ConfigError, match="allowed are staple, majority, mean"):
        sizes(3, "own")


def curve(members: list[int], mean: list[float]) -> Curve:
    return Curve(np.array(members), np.array(mean), np.zeros(len(mean)), 1)


def test_an_ensemble_converges_when_ten_more_members_change_nothing() -> None:
    rising = [0.9 - 0.1 / n for n in range(1, 41)]  # from n - 10 to n: 0.1 * (1/(n-10) - 1/n) = 1 / (n * (n-10))
    expected = next(n for n in range(11, 41) if 1 / (n * (n - 10)) < 0.001)
    assert convergence(curve(list(range(1, 41)), rising)) == expected == 38
    assert convergence(curve(list(range(1, 37)), rising[:36])) is None
    assert convergence(curve(list(range(1, 13)), [0.8] * 12)) == 11
    assert convergence(curve(list(range(1, 11)), [0.8] * 10)) is None


def test_a_bump_among_the_last_ten_is_a_change() -> None:
    bumpy = [0.8] * 5 + [0.802] + [0.8] * 14
    assert convergence(curve(list(range(1, 21)), bumpy)) == 17


def test_between_sizes_the_curve_is_a_straight_line() -> None:
    assert convergence(curve([1, 10, 30, 50], [0.5, 0.8, 0.8018, 0.8018])) == 30  # at 20 it is .8009
    assert convergence(curve([1, 10, 30, 50], [0.5, 0.8, 0.8022, 0.8022])) == 50


def test_what_makes_no_curve_is_refused() -> None:
    with pytest.raises(DataError, match="no case"):
        pool([])
    members, truth = raters(3, 2)
    labels = members[:, 0].view(np.uint8)
    with pytest.raises(ShapeError, match="make a table of each"):
        tabulate(labels, truth, exclusive=False)
    with pytest.raises(ShapeError, match=r"\(20, 24\), the reference on \(20, 23\)"):
        tabulate(labels, truth[:1, :, 1:], exclusive=False)
