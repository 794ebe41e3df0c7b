"""Metrics of surfaces against brute force, MONAI, surface-distance, SimpleITK, and shapes whose distances are known."""

from __future__ import annotations

import math
import warnings
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt, gaussian_filter

from medsegdiff.evaluation import evaluate
from medsegdiff.metrics.base import METRICS, Empty
from medsegdiff.metrics.borders import DENSE, border, border_distances
from medsegdiff.metrics.overlap import overlap_scores
from medsegdiff.metrics.paired import all_scores
from medsegdiff.metrics.surface import assd, hd95, nsd, surface_scores
from medsegdiff.metrics.units import sheared_axes
from medsegdiff.types import Geometry

SPACINGS = [(1.0, 1.0, 1.0), (2.5, 0.7, 0.7), (0.4, 3.0, 1.1)]


def blob(seed: int, shape: tuple[int, ...] = (9, 12, 10), share: float = 0.3, smooth: float = 1.2) -> np.ndarray:
    field = gaussian_filter(np.random.default_rng(seed).normal(size=shape), smooth)
    return field > np.quantile(field, 1 - share)


def brute_border(mask: np.ndarray) -> np.ndarray:
    places = []
    for place in np.argwhere(mask):
        beside = [
            tuple(place + step * np.eye(mask.ndim, dtype=int)[axis]) for axis in range(mask.ndim) for step in (-1, 1)
        ]
        if not all(all(0 <= p < n for p, n in zip(at, mask.shape, strict=True)) and mask[at] for at in beside):
            places.append(place)
    return np.array(places)


def brute(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Compare every border pixel with every other."""
    here, there = (brute_border(mask) * np.array(spacing) for mask in (a, b))
    table = np.sqrt(((here[:, None] - there[None]) ** 2).sum(axis=-1))
    return table.min(axis=1), table.min(axis=0)


@pytest.mark.parametrize("dense", [0, DENSE, 10**9])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("smooth", [0.0, 1.2, 2.5])
def test_distances_equal_brute_force_whichever_way_they_are_found(
    dense: int, spacing: tuple[float, ...], smooth: float
) -> None:
    """Always the tree, as it comes, always the transform."""
    a, b = blob(3, smooth=smooth, share=0.2), blob(4, smooth=smooth, share=0.02)
    for got, expected in zip(border_distances(a, b, spacing=spacing, dense=dense), brute(a, b, spacing), strict=True):
        assert np.sort(got) == pytest.approx(np.sort(expected))


@pytest.mark.parametrize("spacing", SPACINGS)
def test_scores_equal_brute_force(spacing: tuple[float, ...]) -> None:
    a, b = blob(1), blob(2, share=0.25)
    there, back = brute(a, b, spacing)
    pooled = np.concatenate([there, back])
    assert assd(a, b, spacing=spacing) == pytest.approx(pooled.mean())
    assert assd(a, b, spacing=spacing) != pytest.approx((there.mean() + back.mean()) / 2)
    assert hd95(a, b, spacing=spacing) == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))
    for tolerance in (0.0, 0.8, 1.4, 3.0):
        near = np.mean(pooled <= tolerance * (1 + 1e-6))
        assert nsd(a, b, spacing=spacing, tolerance=tolerance) == pytest.approx(near)


@pytest.mark.parametrize("shape", [(32, 28), (14, 12, 13)])
@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_monais(seed: int, shape: tuple[int, ...]) -> None:
    from monai.metrics import compute_average_surface_distance, compute_surface_dice

    spacing = (1.5, 0.8, 1.1)[: len(shape)]
    a, b = blob(seed, shape), blob(seed + 50, shape, share=0.25)
    tensors = [torch.from_numpy(m)[None, None].float() for m in (a, b)]
    kind = {"include_background": True, "spacing": list(spacing)}
    theirs = compute_average_surface_distance(*tensors, symmetric=True, **kind)
    assert assd(a, b, spacing=spacing) == pytest.approx(theirs.item(), rel=1e-5)
    for tolerance in (1.0, 2.0):
        theirs = compute_surface_dice(*tensors, class_thresholds=[tolerance], **kind)
        assert nsd(a, b, spacing=spacing, tolerance=tolerance) == pytest.approx(theirs.item(), abs=1e-6)


def test_distances_equal_simpleitks() -> None:
    """SimpleITK's border and distance map, from its own filters; its Hausdorff distance, of all pixels."""
    import SimpleITK as sitk  # noqa: N813

    spacing = (2.5, 0.7, 0.7)
    a, b = blob(7), blob(8, share=0.2)
    images = [sitk.GetImageFromArray(m.astype(np.uint8)) for m in (np.pad(a, 1), np.pad(b, 1))]
    for image in images:
        image.SetSpacing(spacing[::-1])  # its axes run the other way
    contours = [sitk.LabelContour(image, fullyConnected=False) for image in images]
    maps = [sitk.SignedMaurerDistanceMap(c, squaredDistance=False, useImageSpacing=True) for c in contours]
    edges = [sitk.GetArrayFromImage(c).astype(bool) for c in contours]
    distances = [np.maximum(sitk.GetArrayFromImage(m), 0) for m in maps]
    there, back = border_distances(a, b, spacing=spacing)
    assert np.sort(there) == pytest.approx(np.sort(distances[1][edges[0]]), abs=1e-5)
    assert np.sort(back) == pytest.approx(np.sort(distances[0][edges[1]]), abs=1e-5)


def deepmind(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> dict[str, np.ndarray]:
    import surface_distance

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it calls scipy by old names
        return surface_distance.compute_surface_distances(a, b, spacing)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_shifted_cubes_give_deepminds_numbers(spacing: tuple[float, ...]) -> None:
    """Its border lies between pixels and has areas: distances are the same, means and shares nearly."""
    import surface_distance

    a, b = np.zeros((30, 30, 30), bool), np.zeros((30, 30, 30), bool)
    a[5:25, 5:25, 5:25], b[8:28, 5:25, 5:25] = True, True
    theirs = deepmind(a, b, spacing)
    shift = 3 * spacing[0]
    assert theirs["distances_gt_to_pred"].max() == pytest.approx(shift)
    assert max(d.max() for d in border_distances(a, b, spacing=spacing)) == pytest.approx(shift)
    for tolerance in (shift / 2, shift):
        area = surface_distance.compute_surface_dice_at_tolerance(theirs, tolerance)
        equal = tolerance == shift or len(set(spacing)) == 1  # else sides weigh by their area there, by pixels here
        assert nsd(a, b, spacing=spacing, tolerance=tolerance) == pytest.approx(area, abs=0.06 if equal else 0.4)
    if len(set(spacing)) == 1:
        mean = np.mean(surface_distance.compute_average_surface_distance(theirs))
        assert assd(a, b, spacing=spacing) == pytest.approx(mean, rel=0.12)


def ball(radius: float, spacing: tuple[float, ...], side: float = 24.0) -> np.ndarray:
    """Draw a ball of a radius in mm in the middle of a cube."""
    axes = [np.arange(-side, side + s / 2, s) for s in spacing]
    return sum(x**2 for x in np.meshgrid(*axes, indexing="ij")) <= radius**2


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.6, 0.6, 1.2), (2.0, 0.8, 0.8)])
def test_concentric_spheres_are_as_far_apart_as_their_radii(spacing: tuple[float, ...]) -> None:
    import surface_distance

    inner, outer = ball(14, spacing), ball(20, spacing)
    voxel = max(spacing)
    scores = surface_scores(inner, outer, spacing=spacing, tolerance=6 + voxel)
    assert scores["hd95"] == pytest.approx(6, abs=voxel)
    assert scores["assd"] == pytest.approx(6, abs=voxel / 2)
    assert scores["nsd"] == 1
    assert nsd(inner, outer, spacing=spacing, tolerance=6 - voxel) == 0
    theirs = np.mean(surface_distance.compute_average_surface_distance(deepmind(inner, outer, spacing)))
    assert scores["assd"] == pytest.approx(theirs, abs=voxel / 2)


def test_shifted_squares() -> None:
    """Counted by hand, of the 36 border pixels of a square of 10 and its copy two pixels further right."""
    a, b = np.zeros((30, 30), bool), np.zeros((30, 30), bool)
    a[5:15, 5:15], b[5:15, 7:17] = True, True
    scores = surface_scores(a, b, spacing=(1.0, 1.0), tolerance=1.0)
    shared, ends, left, right = (
        16 * [0],
        2 * [1, 2],
        8 * [2],
        2 * [1] + 6 * [2],
    )  # top and bottom; their ends; the sides
    by_hand = [*shared, *ends, *left, *right]
    assert sorted(border_distances(a, b, spacing=(1.0, 1.0))[0]) == sorted(by_hand)
    assert scores == {"hd95": 2, "assd": sum(by_hand) / 36, "nsd": pytest.approx(20 / 36)}
    assert surface_scores(a, b, spacing=(1.0, 1.0), tolerance=2.0)["nsd"] == 1


def test_tolerance_counts_distances_that_only_rounding_puts_beyond_it() -> None:
    a, b = np.zeros((40, 3), bool), np.zeros((40, 3), bool)
    a[2], b[2 + 3] = True, True
    assert 3 * 0.1 > 0.3
    assert nsd(a, b, spacing=(0.1, 1.0), tolerance=0.3) == 1
    assert nsd(a, b, spacing=(0.1, 1.0), tolerance=0.299) == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.2, 4))
def test_surfaces_scale_and_commute(seed: int, scale: float) -> None:
    a, b = blob(seed, (14, 11), share=0.1 + seed % 7 / 10), blob(seed + 1, (14, 11), share=0.1 + seed % 5 / 10)
    one = surface_scores(a, b, spacing=(1.0, 1.5), tolerance=2.0)
    back = surface_scores(b, a, spacing=(scale, 1.5 * scale), tolerance=2 * scale)
    assert back["nsd"] == pytest.approx(one["nsd"])
    for name in ("hd95", "assd"):
        assert back[name] == pytest.approx(scale * one[name])
    assert one["assd"] <= max(d.max() for d in border_distances(a, b, spacing=(1.0, 1.5)))
    assert surface_scores(a, a, spacing=(1.0, 1.5)) == {"hd95": 0, "assd": 0, "nsd": 1}
    assert surface_scores(a.T, b.T, spacing=(1.5, 1.0), tolerance=2.0) == pytest.approx(one)


def test_padding_and_position_make_no_difference() -> None:
    a, b = blob(11, (20, 16)), blob(12, (20, 16))
    wide = [np.pad(mask, ((5, 9), (3, 0))) for mask in (a, b)]
    assert surface_scores(*wide, spacing=(1.0, 2.0)) == pytest.approx(surface_scores(a, b, spacing=(1.0, 2.0)))


@pytest.mark.parametrize("shape", [(9, 12, 10), (9, 1, 10)])
def test_distances_on_a_sheared_grid_are_those_in_the_world(shape: tuple[int, ...]) -> None:
    axes = np.array([[0.0, 0.7, 0.0], [0.7, 0.0, -2.1], [0.0, 0.0, 4.5]])  # a gantry tilted by 25°
    affine = np.eye(4)
    affine[:3, :3] = axes
    a, b = blob(3, shape, share=0.2), blob(4, shape, share=0.02)
    flat = [axis for axis, length in enumerate(shape) if length == 1]
    here, there = (np.insert(brute_border(mask.squeeze()), flat, 0, axis=1) @ axes.T for mask in (a, b))
    table = np.linalg.norm(here[:, None] - there[None], axis=-1)
    spacing = tuple(np.linalg.norm(axes, axis=0).tolist())
    found = sheared_axes(Geometry(shape=shape, spacing=spacing, affine=affine))
    for got, at in zip(border_distances(a, b, spacing=spacing, axes=found), (1, 0), strict=True):
        assert np.sort(got) == pytest.approx(np.sort(table.min(axis=at)))
    straight = axes @ np.diag([1, 1, 0]) + np.diag([0, 0, 4.5])
    affine[:3, :3] = straight
    assert sheared_axes(Geometry(shape=shape, spacing=spacing, affine=affine)) is None


def test_volumes_of_a_tilted_gantry_are_scored_in_the_world(tmp_path: Path) -> None:
    """Two voxels, three slices and perhaps two rows apart."""
    affine = np.diag([0.5, 0.5, 1.0, 1.0])
    affine[:3, 2] = 0, -3, 4
    for folder, one, other in (("ref", (2, 3, 1), (2, 5, 1)), ("pred", (2, 3, 4), (2, 3, 4))):
        (tmp_path / folder).mkdir()
        for name, place in (("one", one), ("other", other)):
            volume = np.zeros((6, 6, 6), np.uint8)
            volume[place] = 1
            nib.save(nib.Nifti1Image(volume, affine), tmp_path / folder / f"{name}.nii.gz")
    scores = evaluate(tmp_path / "pred", tmp_path / "ref").scores
    assert scores.value("one", "hd95") == pytest.approx(15)  # 3 times (3, 4)
    assert scores.value("other", "hd95") == pytest.approx(math.hypot(1 + 9, 12))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shape", [(14, 11), (1, 9)])
def test_a_volume_of_one_slice_is_scored_as_the_picture_that_it_is(shape: tuple[int, int], axis: int) -> None:
    """Whatever its thickness; where a mask is missing, too."""
    masks = [blob(3, shape), blob(4, shape, share=0.25), np.zeros(shape, bool), np.ones(shape, bool)]
    spacing, thick = (1.5, 0.7), [1.5, 0.7]
    thick.insert(axis, 5.0)
    for a in masks:
        for b in masks:
            slices = [np.expand_dims(mask, axis) for mask in (a, b)]
            assert all_scores(*slices, spacing=tuple(thick)) == pytest.approx(all_scores(a, b, spacing=spacing))


def test_a_mask_that_is_missing_costs_something_on_a_grid_of_one_pixel() -> None:
    one = np.ones((1, 1), bool)
    assert assd(one, ~one, spacing=(2.0, 1.0)) == assd(one[..., None], ~one[..., None], spacing=(2.0, 1.0, 5.0)) == 2


@pytest.mark.parametrize("shape", [(7,), (6, 5), (4, 5, 6), (1, 5), (2, 2)])
def test_borders_equal_brute_force(shape: tuple[int, ...]) -> None:
    for mask in (blob(1, shape, share=0.8), np.ones(shape, bool)):
        assert np.argwhere(border(mask)).tolist() == brute_border(mask).tolist()


NONE, SOME, ALL = np.zeros((6, 8), bool), np.pad(np.ones((2, 2), bool), ((2, 2), (3, 3))), np.ones((6, 8), bool)
PAIRS = [(SOME, ALL), (ALL, SOME), (SOME, NONE), (NONE, SOME), (NONE, NONE), (ALL, ALL), (blob(1, (6, 8)), SOME)]


@pytest.mark.parametrize("pair", range(len(PAIRS)))
def test_scores_together_equal_scores_alone(pair: int) -> None:
    together = all_scores(*PAIRS[pair], spacing=(2.0, 1.0))
    assert together == {entry.name: entry.factory(*PAIRS[pair], spacing=(2.0, 1.0)) for entry in METRICS}
    assert list(together) == [entry.name for entry in METRICS]


def test_a_metric_of_a_plug_in_is_scored_with_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METRICS, "_entries", dict(METRICS._entries))
    METRICS.register("pixels", better="higher")(lambda prediction, reference, *, spacing, empty=None: 4.0)
    assert all_scores(SOME, SOME, spacing=(1.0, 1.0))["pixels"] == 4


@pytest.mark.parametrize(
    ("name", "no_reference", "no_prediction", "both"),
    [
        ("assd", 10, 10, 0),
        ("nsd", 0, 0, 1),
        ("sensitivity", 0, 0, 1),
        ("specificity", 44 / 48, 1, 1),
        ("precision", 0, 0, 1),
        ("volume_error", 100, 100, 0),
    ],
)
def test_empty_masks_follow_the_table(name: str, no_reference: float, no_prediction: float, both: float) -> None:
    metric, cases = METRICS[name].factory, ((SOME, NONE), (NONE, SOME), (NONE, NONE))
    assert [metric(p, r, spacing=(1.0, 1.0)) for p, r in cases] == pytest.approx([no_reference, no_prediction, both])
    mine = Empty(no_reference=7.0, no_prediction=8.0, both=9.0)
    assert [metric(p, r, spacing=(1.0, 1.0), empty=mine) for p, r in cases] == [7, 8, 9]
    of = partial(surface_scores, spacing=(1.0, 1.0)) if name in ("assd", "nsd") else overlap_scores
    given_ = [of(p, r, empty={name: mine}) for p, r in cases]
    assert [scores[name] for scores in given_] == [7, 8, 9]
    assert all(scores["dice" if "dice" in scores else "hd95"] not in (7, 8, 9) for scores in given_)


def test_missing_masks_cost_the_diagonal_in_millimetres() -> None:
    assert assd(SOME, NONE, spacing=(2.0, 0.5)) == pytest.approx(math.hypot(12, 4))


def test_a_transform_in_the_box_equals_that_of_the_grid() -> None:
    a, b = np.zeros((40, 50), bool), np.zeros((40, 50), bool)
    a[3:9, 4:11], b[30:38, 33:47] = True, True
    there, _ = border_distances(a, b, spacing=(1.0, 3.0))
    whole = distance_transform_edt(~border(b), sampling=(1.0, 3.0))[border(a)]
    assert np.sort(there) == pytest.approx(np.sort(whole))
