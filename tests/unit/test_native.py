"""Pictures on their native grid: strip by strip the same, bit by bit, as at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from medsegdiff import Segmenter
from medsegdiff.data.placement import Placement
from medsegdiff.data.transforms import from_grid
from medsegdiff.fusion.fusers import FUSERS, Fused
from medsegdiff.fusion.mixture import Mixture
from medsegdiff.inference import canvas
from medsegdiff.inference.canvas import cut
from medsegdiff.inference.ensemble import Ensemble
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
    for name, value in {"STRIP": 4000, "LARGE": 100}.items():
        monkeypatch.setattr(canvas, name, value)


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
    monkeypatch.setattr(canvas, "STRIP", 3 * shape[0] * 10)
    monkeypatch.setattr(canvas, "NARROWEST", 4)
    placement = Placement(shape, size, (64, 64))
    drawn = torch.rand(3, 2, 1, 64, 64)
    restored = Restored([Share(Ensemble(drawn, None, drawn[:1], (1.0,)), 1, placement, Mixture())], Labels())
    strips = list(restored.strips())
    assert len(strips) > 3
    assert torch.equal(torch.cat([strip.members for strip in strips], dim=-1), from_grid(drawn[:, 1], placement))
    assert torch.equal(restored.whole().members, from_grid(drawn[:, 1], placement))


@pytest.mark.parametrize(("shape", "per_pixel"), [((4000, 6000), 30), ((14000, 14009), 160), ((1, 1), 1), ((9, 10), 3)])
def test_strips_are_as_large_as_they_may_be(shape: tuple[int, int], per_pixel: int) -> None:
    cuts = cut(shape, per_pixel=per_pixel)
    assert [column for piece in cuts for column in range(shape[1])[piece]] == list(range(shape[1]))
    widths = [piece.stop - piece.start for piece in cuts]
    most = max(canvas.NARROWEST, canvas.STRIP // shape[0] // per_pixel)
    assert max(widths) < most + canvas.NARROWEST
    assert len(cuts) <= 1 + shape[1] // (most - canvas.NARROWEST + 1)
    assert min(widths) >= min(canvas.NARROWEST, shape[1])
