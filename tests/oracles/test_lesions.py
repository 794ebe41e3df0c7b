"""Lesion by lesion: counts against MONAI and brute force over every pairing, BraTS's formula worked out by sets."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from monai.metrics.panoptic_quality import compute_panoptic_quality
from scipy.ndimage import gaussian_filter

from medsegdiff.errors import ConfigError
from medsegdiff.metrics.instances import NEIGHBOURS, Overlaps, components
from medsegdiff.metrics.lesions import LesionRule, Lesions, count_lesions

Pixel = tuple[int, ...]


def blobs(seed: int, shape: tuple[int, ...], share: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Two masks of several lesions, the second partly like the first."""
    rng = np.random.default_rng(seed)
    one, two = (gaussian_filter(rng.normal(size=shape), 1.0) for _ in range(2))
    both = [one, 0.8 * one + 0.4 * two]
    first, second = (of > np.quantile(of, 1 - share) for of in both)
    return first, second


def parts_of(mask: np.ndarray, connectivity: int) -> list[set[Pixel]]:
    """Connected components by walking from pixel to pixel."""
    axes = NEIGHBOURS[mask.ndim][connectivity]
    steps = [s for s in itertools.product((-1, 0, 1), repeat=mask.ndim) if 0 < sum(map(abs, s)) <= axes]
    left, found = {tuple(map(int, place)) for place in np.argwhere(mask)}, []
    while left:
        part, border = set(), [min(left)]
        while border:
            place = border.pop()
            if place in left:
                left.remove(place)
                part.add(place)
                border += [tuple(a + b for a, b in zip(place, step, strict=True)) for step in steps]
        found.append(part)
    return found


def grown(part: set[Pixel], shape: tuple[int, ...], by: int) -> set[Pixel]:
    """Add the neighbours that differ along one or two axes, so many times, within the grid."""
    steps = [s for s in itertools.product((-1, 0, 1), repeat=len(shape)) if sum(map(abs, s)) <= 2]
    for _ in range(by):
        around = {tuple(a + b for a, b in zip(place, step, strict=True)) for place in part for step in steps}
        part = {place for place in around if all(0 <= a < n for a, n in zip(place, shape, strict=True))}
    return part


def iou(one: set[Pixel], two: set[Pixel]) -> float:
    return len(one & two) / len(one | two)


def best_pairs(true: list[set[Pixel]], found: list[set[Pixel]], above: float) -> list[tuple[int, int]]:
    """Of all ways to pair lesions one to one with an IoU above a threshold, that of the largest sum."""
    close = [
        (i, j) for i, j in itertools.product(range(len(true)), range(len(found))) if iou(true[i], found[j]) > above
    ]

    def ways(pairs: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
        yield []
        for k, (i, j) in enumerate(pairs):
            for rest in ways([(a, b) for a, b in pairs[k + 1 :] if a != i and b != j]):
                yield [(i, j), *rest]

    return max(ways(close), key=lambda way: sum(iou(true[i], found[j]) for i, j in way))


def brats_dice(true: np.ndarray, found: np.ndarray, *, by: int, connectivity: int, above: float) -> float:
    """The lesion-wise Dice of BraTS 2023, by sets of pixels."""
    lesions: list[set[Pixel]] = []
    for part in parts_of(true, connectivity):  # those whose dilations touch or meet are one
        wide = grown(part, true.shape, by)
        near = [
            of
            for of in lesions
            if len(parts_of(drawn(wide | grown(of, true.shape, by), true.shape), connectivity)) == 1
        ]
        lesions = [of for of in lesions if of not in near] + [part.union(*near)]
    predicted, dices, reached = parts_of(found, connectivity), [], set()
    for lesion in lesions:
        reach = grown(lesion, true.shape, by)
        hit = [k for k, part in enumerate(predicted) if part & reach]
        union = set().union(*(predicted[k] for k in hit))
        reached |= set(hit)
        if len(lesion) > above:
            dices.append(2 * len(lesion & union) / (len(lesion) + len(union)))
    whole = len(dices) + len(predicted) - len(reached)
    return sum(dices) / whole if whole else math.nan


def drawn(part: set[Pixel], shape: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    for place in part:
        mask[place] = True
    return mask


def counted(found: np.ndarray, true: np.ndarray, rule: LesionRule, **given: object) -> Lesions:
    return count_lesions(found, true, rule=rule, **given)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("shape", "connectivity"), [((24, 30), 8), ((24, 30), 4), ((8, 10, 9), 26), ((8, 10, 9), 6)])
def test_panoptic_quality_is_that_of_monai(seed: int, shape: tuple[int, ...], connectivity: int) -> None:
    true, found = blobs(seed, shape)
    maps = [torch.from_numpy(components(mask, connectivity=connectivity)) for mask in (found, true)]
    tp, fp, fn, total = compute_panoptic_quality(*maps, output_confusion_matrix=True).tolist()
    ours = counted(found, true, LesionRule(connectivity=connectivity))
    assert (ours.panoptic.tp, ours.panoptic.fp, ours.panoptic.fn) == (tp, fp, fn)
    assert ours.panoptic.iou == pytest.approx(total)
    numbers = ours.numbers()
    assert numbers["pq"] == pytest.approx(float(compute_panoptic_quality(*maps, smooth_numerator=0.0)))
    if tp:
        assert numbers["pq"] == pytest.approx(numbers["sq"] * numbers["rq"])
        assert numbers["lesion_f1"] == numbers["rq"]
        harmonic = 2 / (1 / numbers["lesion_precision"] + 1 / numbers["lesion_recall"])
        assert numbers["lesion_f1"] == pytest.approx(harmonic)


@pytest.mark.parametrize("connectivity", [4, 8, 6, 18, 26])
def test_components_are_those_of_a_walk_from_pixel_to_pixel(connectivity: int) -> None:
    mask = np.random.default_rng(connectivity).random((9, 9) if connectivity in (4, 8) else (5, 5, 5)) < 0.3
    ours = components(mask, connectivity=connectivity)
    sets = [{tuple(map(int, p)) for p in np.argwhere(ours == k)} for k in range(1, ours.max() + 1)]
    assert sorted(map(sorted, sets)) == sorted(map(sorted, parts_of(mask, connectivity)))


@pytest.mark.parametrize("above", [0.0, 0.1, 0.3, 0.5])
@pytest.mark.parametrize("seed", range(5))
def test_pairs_are_the_best_of_all_ways_to_pair(seed: int, above: float) -> None:
    true, found = blobs(seed, (12, 12), share=0.3)
    sets = [parts_of(mask, 4) for mask in (true, found)]
    best = best_pairs(*sets, above)
    ours = counted(found, true, LesionRule(iou=above, connectivity=4)).matching
    assert ours.iou == pytest.approx(sum(iou(sets[0][i], sets[1][j]) for i, j in best))
    assert (ours.tp, ours.tp + ours.fn, ours.tp + ours.fp) == (len(best), len(sets[0]), len(sets[1]))


def test_a_low_threshold_needs_an_assignment_not_the_best_pair_first() -> None:
    true, found = (np.zeros((1, 20), bool) for _ in range(2))
    true[0, :6], true[0, 7:13] = True, True
    found[0, 2:11], found[0, 12:20] = True, True  # the first meets both, the second the last pixel of one
    assert counted(found, true, LesionRule(iou=0.05)).matching.tp == 2
    assert counted(found, true, LesionRule(iou=0.35)).matching.tp == 1


@pytest.mark.parametrize(("shape", "connectivity"), [((26, 26), 8), ((8, 8, 8), 26), ((8, 8, 8), 6)])
@pytest.mark.parametrize("by", [0, 1, 2])
@pytest.mark.parametrize("above", [0.0, 6.0])
def test_lesion_wise_dice_is_that_of_brats_worked_out_by_sets(
    shape: tuple[int, ...], connectivity: int, by: int, above: float
) -> None:
    for seed in range(2):
        true, found = blobs(seed, shape, share=0.08)
        ours = counted(found, true, LesionRule(dilation=by, above=above, connectivity=connectivity))
        theirs = brats_dice(true, found, by=by, connectivity=connectivity, above=above)
        assert ours.numbers()["lesion_dice"] == pytest.approx(theirs, nan_ok=True)


def test_lesions_drawn_one_by_one_stay_two_where_they_touch() -> None:
    true = np.zeros((8, 12), np.int32)
    true[2:6, 1:5], true[2:6, 5:9] = 1, 2
    whole, apart = true > 0, (true > 0) & (np.arange(12) != 5)
    rule = LesionRule("drawn")
    assert counted(whole, whole, LesionRule()).matching.tp == 1
    blob = counted(whole, whole, rule, drawn=true)
    assert (blob.matching.tp, blob.matching.fp, blob.matching.fn) == (0, 1, 2)  # half of the blob each: not above ½
    assert blob.numbers()["lesion_dice"] == pytest.approx(2 / 3)
    parted = counted(apart, whole, rule, drawn=true)
    assert (parted.matching.tp, parted.numbers()["sq"]) == (2, pytest.approx((1 + 12 / 16) / 2))


def test_small_lesions_are_left_out_and_charge_nobody() -> None:
    true, found = (np.zeros((30, 30), bool) for _ in range(2))
    true[2:8, 2:8], true[20:22, 20:22] = True, True  # 36 and 4 pixels
    found[2:8, 2:8], found[19:23, 19:22], found[10, 28] = True, True, True  # the second finds the small one
    all_of_them = counted(found, true, LesionRule(iou=0.3)).matching
    assert (all_of_them.tp, all_of_them.fp, all_of_them.fn) == (2, 1, 0)
    large = counted(found, true, LesionRule(iou=0.3, above=4.0))
    assert (large.matching.tp, large.matching.fp, large.matching.fn) == (1, 0, 0)
    assert large.numbers()["lesion_dice"] == pytest.approx(1 / 2)  # BraTS charges false lesions of any size
    mm = count_lesions(found, true, pixel=0.25, rule=LesionRule(iou=0.3, above=0.99))
    assert (mm.matching.tp, mm.matching.fn) == (2, 0)
    assert count_lesions(found, true, pixel=0.25, rule=LesionRule(iou=0.3, above=1.0)).matching.tp == 1


def test_what_is_not_defined_is_no_number_and_is_counted() -> None:
    empty, full = np.zeros((6, 6), bool), np.ones((6, 6), bool)
    nothing = counted(empty, empty, LesionRule())
    assert all(map(math.isnan, nothing.numbers().values()))
    missed, false = counted(empty, full, LesionRule()).numbers(), counted(full, empty, LesionRule()).numbers()
    assert [missed[of] for of in ("lesion_f1", "lesion_recall", "lesion_dice", "pq", "rq")] == [0] * 5
    assert math.isnan(missed["lesion_precision"])
    assert [false[of] for of in ("lesion_f1", "lesion_precision", "lesion_dice", "pq", "rq")] == [0] * 5
    assert math.isnan(false["lesion_recall"])
    pooled = nothing + counted(full, full, LesionRule())
    assert (pooled.without, pooled.numbers()["pq"]) == (1, 1)


def test_pooled_counts_are_those_of_one_large_picture() -> None:
    pairs = [blobs(seed, (20, 20)) for seed in range(3)]
    apart = [counted(found, true, LesionRule()) for true, found in pairs]
    wide = [np.concatenate([np.pad(pair[k], 2) for pair in pairs]) for k in (1, 0)]
    together = counted(*wide, LesionRule())
    assert sum(apart[1:], apart[0]).numbers() == pytest.approx(together.numbers())


def test_rules_that_do_not_fit_are_refused() -> None:
    mask = np.ones((4, 4), bool)
    with pytest.raises(ConfigError, match="connectivity is 26; in 2 axes allowed are 4, 8"):
        counted(mask, mask, LesionRule(connectivity=26))
    with pytest.raises(ConfigError, match="allowed are 0 up to, but not, 1"):
        counted(mask, mask, LesionRule(iou=1.0))
    with pytest.raises(ConfigError, match="neither may be below 0"):
        counted(mask, mask, LesionRule(dilation=-1))
    with pytest.raises(ConfigError, match="none are joined"):
        LesionRule("drawn", dilation=1).settled(3)
    assert [LesionRule().settled(n).dilation for n in (2, 3)] == [0, 3]
    assert not Overlaps.of(*[np.zeros((3, 3), np.int32)] * 2).matched(0.0).size
