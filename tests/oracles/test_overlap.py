"""Metrics of overlap against counts by hand, MONAI and SimpleITK, and identities between them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medsegdiff.metrics.overlap import (
    iou,
    overlap_scores,
    precision,
    sensitivity,
    specificity,
    volume_error,
)

P = np.array([[1, 1, 1, 0], [1, 0, 0, 0]], bool)
R = np.array([[0, 1, 1, 1], [0, 0, 0, 0]], bool)


def drawn(seed: int, shape: tuple[int, ...] = (6, 7, 5)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    reference = rng.random(shape) < rng.uniform(0.1, 0.9)
    return reference ^ (rng.random(shape) < rng.uniform(0.05, 0.6)), reference


def test_a_small_case_by_hand() -> None:
    """Two pixels in both, two only predicted, one only in the reference, three in neither."""
    assert overlap_scores(P, R) == pytest.approx(
        {
            "dice": 4 / 7,
            "iou": 2 / 5,
            "sensitivity": 2 / 3,
            "specificity": 3 / 5,
            "precision": 2 / 4,
            "volume_error": 100 / 3,
        }
    )
    assert volume_error(R, P) == pytest.approx(25)


@pytest.mark.parametrize("seed", range(6))
def test_shares_equal_monais(seed: int) -> None:
    from monai.metrics import compute_confusion_matrix_metric, get_confusion_matrix

    p, r = drawn(seed)
    matrix = get_confusion_matrix(*(torch.from_numpy(m)[None, None].float() for m in (p, r)))
    for of in (sensitivity, specificity, precision):
        assert of(p, r) == pytest.approx(compute_confusion_matrix_metric(of.name, matrix).item(), abs=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_volumes_and_precision_equal_simpleitks(seed: int) -> None:
    import SimpleITK as sitk  # noqa: N813

    p, r = drawn(seed)
    measured = sitk.LabelOverlapMeasuresImageFilter()
    measured.Execute(*(sitk.GetImageFromArray(m.astype(np.uint8)) for m in (r, p)))  # source, target
    d = np.sign(p.sum() - r.sum()) * volume_error(p, r) / 100
    assert measured.GetVolumeSimilarity() == pytest.approx(-2 * d / (2 + d))  # relative to the mean of both volumes
    assert iou(p, r) == pytest.approx(measured.GetJaccardCoefficient())
    assert 1 - measured.GetFalseNegativeError() == pytest.approx(precision(p, r))  # its target is what we predict


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9999))
def test_identities(seed: int) -> None:
    p, r = drawn(seed, (8, 9))
    if not p.any() or not r.any() or p.all() or r.all():
        return
    scores = overlap_scores(p, r)
    found, right = scores["sensitivity"], scores["precision"]
    assert scores["dice"] == pytest.approx(2 * found * right / (found + right) if found else 0)
    assert found == pytest.approx(precision(r, p))
    assert scores["specificity"] == pytest.approx(sensitivity(~p, ~r))
    if right:
        assert scores["volume_error"] == pytest.approx(abs(100 * (found / right - 1)))
    assert overlap_scores(r, r) == {**dict.fromkeys(scores, 1), "volume_error": 0}


def test_a_reference_that_fills_the_grid_leaves_nothing_outside() -> None:
    assert specificity(P, np.ones_like(P)) == specificity(np.ones_like(P), np.ones_like(P)) == 1
    assert specificity(np.ones_like(P), R) == 0
