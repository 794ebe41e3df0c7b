"""Pictures on their native grid: strip by strip the same, bit by bit, as at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch.nn import functional as F

from medsegdiff import Segmenter
from medsegdiff.data.placement import Placement
from medsegdiff.data.restoring import Restoring
from medsegdiff.data.transforms import from_grid
from medsegdiff.fusion.expected_dice import largest_expected_dice
from medsegdiff.fusion.fusers import FUSERS, Fused
from medsegdiff.fusion.mixture import Mixture
from medsegdiff.fusion.protocol import Raters
from medsegdiff.fusion.structures import decide_volume
from medsegdiff.inference import canvas, native
from medsegdiff.inference.canvas import cut
from medsegdiff.inference.ensemble import Ensemble
from medsegdiff.inference.fusing import Fusing, part_of
from medsegdiff.inference.native import Restored, Share
from medsegdiff.inference.segmentation import Segmentation
from medsegdiff.labels import Labels
from medsegdiff.models.base import build_model
from tests.makers import TASKS, configured, randomised

SHAPE = (90, 131)
FUSIONS = ("mean", "majority", "staple", "dice")


@pytest.fixture(scope="module", params=sorted(TASKS))
def segmenter(request: pytest.FixtureRequest) -> Segmenter:
    config = configured("medsegdiff-v2", request.param)
    torch.manual_seed(104)  # weights with which float32 would round a pixel at the end of a strip otherwise
    return Segmenter(randomised(build_model(config)), config, device="cpu", precision="fp32")


@pytest.fixture
def in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut what is tiny, and put it into files."""
    monkeypatch.setattr(native, "STRIP", 4000)
    monkeypatch.setattr(canvas, "LARGE", 100)


def arrays_of(result: Segmentation) -> dict[str, np.ndarray]:
    found = {**vars(result), **vars(result.uncertainty)}
    return {name: array for name, array in found.items() if isinstance(array, np.ndarray)}


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_picture_is_the_same_in_strips_as_at_once(
    segmenter: Segmenter, fusion: str, request: pytest.FixtureRequest
) -> None:
    image = np.random.default_rng(0).random((2, *SHAPE)).astype(np.float32)
    at_once = segmenter(image, members=3, steps=1, fusion=fusion)
    request.getfixturevalue("in_strips")
    stripped = segmenter(image, members=3, steps=1, fusion=fusion)
    assert isinstance(stripped.members, np.memmap)
    expected, found = arrays_of(at_once), arrays_of(stripped)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert np.array_equal(found[name], array), name
    for certain in (stripped, at_once):
        assert certain.anchor_certainty is not None
    assert stripped.anchor_certainty.confidence == pytest.approx(at_once.anchor_certainty.confidence, rel=1e-12)
    assert stripped.agreement() == at_once.agreement()


@pytest.mark.usefixtures("in_strips")
def test_a_fusion_of_others_sees_all_members_at_once(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may look at neighbours, and at probabilities."""
    seen = []

    def other(samples: torch.Tensor, *, exclusive: bool = False) -> Fused:
        seen.append(samples.shape)
        return Fused(samples.mean(dim=0))

    entry = replace(FUSERS["majority"], name="other", factory=other, facts={})
    monkeypatch.setitem(FUSERS._entries, "other", entry)
    segmenter(np.random.default_rng(0).random((2, *SHAPE)).astype(np.float32), members=3, steps=1, fusion="other")
    assert [shape[-2:] for shape in seen] == [SHAPE]


@pytest.mark.parametrize("size", [(40, 64), (64, 33), (17, 64), (64, 64)])
@pytest.mark.parametrize("shape", [(64, 200), (200, 64), (301, 97), (31, 41)])
def test_strips_are_what_restoring_at_once_gives(
    size: tuple[int, int], shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "STRIP", 3 * shape[1] * 10)
    placement = Placement(shape, size, (64, 64))
    drawn = torch.rand(3, 2, 1, 64, 64)
    restored = Restored([Share(Ensemble(drawn, None, drawn[:1], (1.0,)), 1, placement, Mixture())], Labels())
    strips = list(restored.strips())
    assert len(strips) > 3
    assert torch.equal(torch.cat([strip.members for strip in strips], dim=-2), from_grid(drawn[:, 1], placement))
    assert torch.equal(restored.whole().members, from_grid(drawn[:, 1], placement))


@pytest.mark.usefixtures("in_strips")
@pytest.mark.parametrize("entropy_alone", [False, True])
@pytest.mark.parametrize("task", sorted(TASKS))
def test_what_is_told_of_a_picture_is_what_plain_arrays_give(task: str, entropy_alone: bool) -> None:
    """Bit by bit, all of it at once: maps are resized, and each pixel is decided by a line of PyTorch."""
    labels, exclusive = Labels(task, TASKS[task]), task == "exclusive"
    k = len(labels.classes)
    generator = torch.Generator().manual_seed(1)
    noise = 4 * torch.randn(5, 1, k, 16, 16, generator=generator) + 3 * torch.randn(
        1, 1, k, 16, 16, generator=generator
    )
    drawn = torch.stack([labels.activate(one) for one in noise])
    anchor, mean = labels.activate(noise[0] / 2), drawn.mean(dim=0)
    mixture = Mixture(weight=0.3, slopes=(0.9, 1.3, 1.1)[:k], offsets=(0.2, -0.1, 0.0)[:k])
    share = Share(Ensemble(drawn, anchor, mean[None], (1.0,)), 0, Placement(SHAPE, (11, 16), (16, 16)), mixture)
    restored, fusing = Restored([share], labels), Fusing(labels, fusion="dice", raters=Raters())
    found = part_of(restored, fusing, name="a", entropy_alone=entropy_alone)

    members, seen, told = (
        F.interpolate(values[..., 2:13, :], size=SHAPE, mode="bilinear", antialias=True)
        for values in (drawn[:, 0], anchor, mean)
    )

    def decided(p: torch.Tensor) -> torch.Tensor:
        return p.argmax(dim=1) if exclusive else p >= 0.5 if task == "regions" else p[:, 0] >= 0.5

    maps = decided(members).numpy().astype(np.uint8)
    assert np.array_equal(found.members, maps)
    assert found.anchor is not None
    assert np.array_equal(found.anchor, decided(seen)[0])

    mixed = (0.3 * seen.double() + 0.7 * told.double())[0]
    slopes, offsets = (torch.tensor(of, dtype=torch.float64)[:, None, None] for of in (mixture.slopes, mixture.offsets))
    p = slopes * (mixed.log() if exclusive else mixed.logit()) + offsets
    p = (p.softmax(dim=0) if exclusive else p.sigmoid()).float()
    assert torch.equal(torch.from_numpy(found.probability), p)

    structures = range(1, k) if exclusive else range(k)
    votes = np.stack([maps == n if exclusive else maps[:, n] if task == "regions" else maps for n in structures])
    each = [
        largest_expected_dice(of.reshape(5, -1).astype(bool), p[n].flatten().numpy())
        for of, n in zip(votes, structures, strict=True)
    ]
    gains = np.stack([one.gain for one in each]).reshape(len(each), *SHAPE)
    best = np.where((gains > 0).any(axis=0), gains.argmax(axis=0) + 1, 0)
    assert np.array_equal(found.mask, gains > 0 if task == "regions" else best)
    assert 0 < found.mask.astype(bool).mean() < 0.9

    q = members.double().mean(dim=0).numpy()
    bits = entropy(q, base=k) if exclusive else entropy([q, 1 - q], base=2).max(axis=0)
    assert np.allclose(found.uncertainty.entropy, bits, atol=1e-6)
    if entropy_alone:
        assert (found.uncertainty.std, found.uncertainty.disagreement) == (None, None)
    else:
        share_of = F.one_hot(torch.from_numpy(maps).long(), k).movedim(-1, 1) if exclusive else members >= 0.5
        number = share_of.float().mean(dim=0)
        apart = 1 - number.amax(dim=0) if exclusive else torch.minimum(number, 1 - number).amax(dim=0)
        assert np.array_equal(found.uncertainty.disagreement, apart)
        std = members.double().std(dim=0, correction=0).amax(dim=0)
        assert np.allclose(found.uncertainty.std, std, atol=1e-6)

    assert found.confidence is not None
    assert found.anchor_certainty is not None
    for sure, of in ((found.confidence, p), (found.anchor_certainty, seen[0])):
        likely, inside = (of[labels.foreground] * (of[labels.foreground] >= least) for least in (0.01, 0.5))
        both = likely.double().sum(dim=(1, 2)) + (inside > 0).sum(dim=(1, 2))
        assert sure.confidences == pytest.approx((2 * inside.double().sum(dim=(1, 2)) / both).numpy())


def test_the_largest_channel_is_found_without_those_that_are_far_away() -> None:
    """Members that are sure of one of nine classes nearly everywhere, some of two that are equally probable."""
    rng = np.random.default_rng(0)
    classes = np.minimum(np.arange(12)[:, None] * 9 // 12 + (rng.random((4, 12, 10)) < 0.2), 8)
    drawn = np.eye(9, dtype=np.float32)[classes].clip(1e-3)  # (m, h, w, k)
    drawn[0, 3, :, 5], drawn[1, 7:, 2, 3:5] = drawn[0, 3].max(axis=1), 0.7
    values = torch.from_numpy(drawn / drawn.sum(axis=-1, keepdims=True)).movedim(-1, 1)
    for height, width in ((150, 70), (7, 40), (12, 10)):
        placement = Placement((height, width), (12, 10), (12, 10))
        restoring = Restoring(values, placement)
        found = [restoring.largest(slice(start, min(start + 4, height))) for start in range(0, height, 4)]
        assert np.array_equal(np.concatenate(found, axis=1), from_grid(values, placement).numpy().argmax(axis=1))


@pytest.mark.parametrize("slab", [60, 1 << 20])
def test_a_picture_is_decided_part_by_part_as_at_once(slab: int) -> None:
    """Of pixels that are equally good the first ones are taken, in whatever part they lie."""
    rng = np.random.default_rng(2)
    members = (rng.random((6, 20, 15)) * (1.6 + np.sin(np.arange(15)))).astype(np.uint8)
    p = np.where(np.arange(3)[:, None, None] == members[0], 0.6, 0.2).astype(np.float32)
    labels, mask = Labels("exclusive", TASKS["exclusive"]), np.empty((20, 15), np.uint8)
    decide_volume(members, labels, mask=mask, marginal=p, slab=slab, by_rows=True)
    gains = [largest_expected_dice((members == n).reshape(6, -1), p[n].ravel()).gain for n in (1, 2)]
    assert np.array_equal(mask.ravel(), np.where(np.any(gains, axis=0), np.argmax(gains, axis=0) + 1, 0))
    assert {0, 1, 2} == {*np.unique(mask)}


@pytest.mark.parametrize(("shape", "per_pixel"), [((4000, 6000), 30), ((14000, 14009), 160), ((1, 1), 1), ((9, 10), 3)])
def test_strips_are_as_large_as_they_may_be(shape: tuple[int, int], per_pixel: int) -> None:
    most = 1 << 20
    cuts = cut(shape, per_pixel=per_pixel, most=most)
    assert [row for piece in cuts for row in range(shape[0])[piece]] == list(range(shape[0]))
    rows = [piece.stop - piece.start for piece in cuts]
    assert max(rows) == min(shape[0], max(1, most // (shape[1] * per_pixel)))
    assert {*rows[:-1]} <= {max(rows)}
