"""Metrics against brute force, against MONAI, and against identities."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medsegdiff.errors import ShapeError
from medsegdiff.metrics.base import METRICS, Empty, check_shapes
from medsegdiff.metrics.overlap import dice, iou
from medsegdiff.metrics.surface import hd95


def mask(seed: int, shape: tuple[int, ...] = (12, 10), share: float = 0.4) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.2)
    return smooth > np.quantile(smooth, 1 - share)


def brute_border(a: np.ndarray) -> list[tuple[int, ...]]:
    """List foreground pixels with a neighbour, along an axis, that is background or beyond the grid."""
    found = []
    for place in zip(*np.nonzero(a), strict=True):
        for axis, step in itertools.product(range(a.ndim), (-1, 1)):
            other = list(place)
            other[axis] += step
            if not all(0 <= o < n for o, n in zip(other, a.shape, strict=True)) or not a[tuple(other)]:
                found.append(place)
                break
    return found


def brute_hd95(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> float:
    def directed(here: list[tuple[int, ...]], there: list[tuple[int, ...]]) -> float:
        nearest = [min(math.dist(np.multiply(p, spacing), np.multiply(r, spacing)) for r in there) for p in here]
        return float(np.percentile(nearest, 95))

    border_a, border_b = brute_border(a), brute_border(b)
    return max(directed(border_a, border_b), directed(border_b, border_a))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 2.0)])
def test_hd95_equals_brute_force(seed: int, spacing: tuple[float, float]) -> None:
    a, b = mask(seed), mask(seed + 100, share=0.3)
    assert hd95(a, b, spacing=spacing) == pytest.approx(brute_hd95(a, b, spacing))


def test_hd95_equals_brute_force_in_three_dimensions() -> None:
    a, b, spacing = mask(0, (6, 7, 5)), mask(9, (6, 7, 5)), (3.0, 1.0, 0.7)
    assert hd95(a, b, spacing=spacing) == pytest.approx(brute_hd95(a, b, spacing))


@pytest.mark.parametrize("seed", range(6))
def test_metrics_equal_monais(seed: int) -> None:
    from monai.metrics import compute_dice, compute_hausdorff_distance, compute_iou

    a, b = mask(seed, (32, 28)), mask(seed + 50, (32, 28), share=0.25)
    tensors = [torch.from_numpy(m)[None, None].float() for m in (a, b)]
    assert dice(a, b) == pytest.approx(compute_dice(*tensors).item(), abs=1e-6)
    assert iou(a, b) == pytest.approx(compute_iou(*tensors).item(), abs=1e-6)
    theirs = compute_hausdorff_distance(*tensors, include_background=True, percentile=95, spacing=[0.8, 1.5])
    assert hd95(a, b, spacing=(0.8, 1.5)) == pytest.approx(theirs.item(), rel=1e-5)


def test_hd95_of_shifted_squares_is_the_shift() -> None:
    a, b = np.zeros((40, 40), bool), np.zeros((40, 40), bool)
    a[10:20, 10:20], b[10:20, 15:25] = True, True
    assert hd95(a, b, spacing=(1.0, 1.0)) == pytest.approx(5.0)
    assert hd95(a, b, spacing=(1.0, 0.4)) == pytest.approx(2.0)


pairs = st.integers(0, 10_000).map(lambda s: (mask(s, share=0.2 + s % 5 / 10), mask(s + 1, share=0.2 + s % 3 / 10)))


@settings(max_examples=40, deadline=None)
@given(pairs, st.floats(0.1, 5))
def test_identities(two: tuple[np.ndarray, np.ndarray], scale: float) -> None:
    a, b = two
    d, j = dice(a, b), iou(a, b)
    assert d == pytest.approx(2 * j / (1 + j))
    assert j >= d / (2 - d) - 1e-9
    assert (dice(b, a), iou(b, a)) == (d, j)
    assert hd95(a, b, spacing=(scale, scale)) == pytest.approx(scale * hd95(b, a, spacing=(1.0, 1.0)))
    assert (dice(a, a), iou(a, a), hd95(a, a, spacing=(1.0, 1.0))) == (1, 1, 0)


NONE, SOME = np.zeros((6, 8), bool), np.pad(np.ones((2, 2), bool), ((2, 2), (3, 3)))


@pytest.mark.parametrize(
    ("name", "no_reference", "no_prediction", "both"),
    [("dice", 0, 0, 1), ("iou", 0, 0, 1), ("hd95", 10, 10, 0)],
)
def test_empty_masks_follow_the_table(name: str, no_reference: float, no_prediction: float, both: float) -> None:
    metric = METRICS[name].factory
    got = [metric(p, r, spacing=(1.0, 1.0)) for p, r in ((SOME, NONE), (NONE, SOME), (NONE, NONE))]
    assert got == [no_reference, no_prediction, both]
    mine = Empty(no_reference=7.0, no_prediction=8.0, both=9.0)
    got = [metric(p, r, spacing=(1.0, 1.0), empty=mine) for p, r in ((SOME, NONE), (NONE, SOME), (NONE, NONE))]
    assert got == [7, 8, 9]


def test_masks_of_different_shapes_are_refused() -> None:
    with pytest.raises(ShapeError, match="must be equal"):
        check_shapes(prediction=SOME, reference=SOME.T)
