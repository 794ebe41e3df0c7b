"""Area and volume of structures, and how sure a probability is of an image: by hand, and a part at a time."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medsegdiff.inference.certainty import Certainty
from medsegdiff.inference.members import agreement_of, shared_pixels, sizes_of
from medsegdiff.inference.record import ImageRecord
from medsegdiff.inference.sizes import Size, stated_sizes
from medsegdiff.io.atomic import make_room
from medsegdiff.labels import Labels
from medsegdiff.metrics.intervals import Stretch
from medsegdiff.types import Geometry

BINARY = Labels()
CLASSES = Labels("exclusive", ("background", "a", "b"))
REGIONS = Labels("regions", ("disc", "cup"))
PICTURE = Geometry((6, 8), (1.0, 1.0))
VOLUME = Geometry((6, 8, 5), (0.5, 2.0, 3.0), np.diag([0.5, 2.0, 3.0, 1.0]))


@pytest.mark.parametrize("labels", [BINARY, CLASSES, REGIONS])
@pytest.mark.parametrize("slab", [1, 16, 1 << 22])
def test_pixels_of_members_are_counted_a_part_at_a_time(labels: Labels, slab: int) -> None:
    rng = np.random.default_rng(0)
    lead = (4, 2) if labels.task == "regions" else (4,)
    members = rng.integers(0, 3 if labels.exclusive else 2, (*lead, *VOLUME.shape)).astype(np.uint8)
    room = make_room(members.shape, members.dtype, outer=len(lead) + 1)  # as volumes lie, cut along their second axis
    room[...] = members
    expected = [[labels.mask(member, n).sum() for n in range(len(labels.structures))] for member in members]
    assert np.array_equal(sizes_of(room, labels, slab=slab), expected)
    masks = np.stack([labels.masks(member) for member in members], axis=1).astype(int)  # (n, m, …)
    common = np.einsum("nixyz,njxyz->nij", masks, masks)
    assert np.array_equal(shared_pixels(room, labels, slab=slab), common)
    assert np.array_equal(shared_pixels([*room, room[0]], labels, slab=slab)[:, -1, :-1], common[:, 0])
    assert agreement_of(room, labels, slab=slab) == pytest.approx(agreement_of(members, labels))


def test_volumes_are_in_millilitres_and_pictures_in_pixels() -> None:
    counts = np.array([[1000, 0], [2000, 10], [3000, 20]])
    large, wide = replace(VOLUME, shape=(60, 80, 50)), replace(PICTURE, shape=(60, 80))
    volume = stated_sizes(counts, ("a", "b"), large)["a"]  # 3 mm³ a voxel
    assert (volume.mean, volume.low, volume.high) == pytest.approx((6.0, 1100 * 0.003, 2900 * 0.003))
    picture = stated_sizes(counts, ("a", "b"), wide, stretch={"b": Stretch(0.1, 0.2)})
    assert (picture["a"].mean, picture["a"].low, picture["a"].high) == pytest.approx((2000, 1100, 2900))
    assert (picture["b"].low, picture["b"].high) == pytest.approx((0, 19 + 2))
    least = stated_sizes(counts, ("a", "b"), wide, stretch={"b": Stretch(0.1, 0.2, 0.01)})["b"]
    assert (least.low, least.high) == pytest.approx((0, 19 + 0.2 * 48))  # the mean is 10, and 48 a hundredth
    assert (volume.unit, picture["b"].unit) == ("mL", "px")
    assert stated_sizes(counts[:1], ("a", "b"), wide) == {}  # one member has no interval


def test_confidence_of_a_case_by_hand() -> None:
    p = torch.tensor([[[0.9, 0.6], [0.4, 0.1]]])
    found = Certainty.of(p, BINARY)
    assert found.confidence == pytest.approx(2 * 1.5 / (2.0 + 2))
    bits = [-(q * math.log2(q) + (1 - q) * math.log2(1 - q)) for q in (0.9, 0.6, 0.4, 0.1)]
    assert found.entropy == pytest.approx(np.mean(bits))
    assert Certainty.of(torch.zeros(1, 2, 2), BINARY).confidence == 1
    assert Certainty.of(torch.full((1, 2, 2), 0.1), BINARY).confidence == 0
    assert Certainty.of(torch.ones(1, 2, 2), BINARY).confidence == 1
    two = torch.stack([torch.ones(2, 2), torch.full((2, 2), 0.1)])
    assert Certainty.of(two, REGIONS).confidence == pytest.approx(0.5)  # the mean over structures
    background = torch.stack([torch.ones(2, 2), torch.zeros(2, 2), torch.zeros(2, 2)])
    assert Certainty.of(background, CLASSES).confidence == 1  # which is no structure


@pytest.mark.parametrize("labels", [BINARY, CLASSES, REGIONS])
@pytest.mark.parametrize("slab", [1, 30, 1 << 22])
def test_confidence_of_a_volume_is_that_of_its_slices_together(labels: Labels, slab: int) -> None:
    p = torch.rand(len(labels.classes), *VOLUME.shape, generator=torch.Generator().manual_seed(0))
    whole = Certainty.of(p, labels)
    slices = [Certainty.of(part, labels) for part in p.unbind(dim=2)]
    for other in (sum(slices[1:], slices[0]), Certainty.of_array(p.numpy(), labels, slab=slab)):
        assert (other.confidence, other.entropy) == pytest.approx((whole.confidence, whole.entropy))


def test_confidence_is_about_the_dice_that_is_expected_of_independent_pixels() -> None:
    rng = np.random.default_rng(0)
    p = np.clip(rng.beta(0.3, 0.6, (1, 64, 64)), 0, 1)
    mask = p[0] >= 0.5
    dices = []
    for _ in range(200):
        truth = rng.random((64, 64)) < p[0]
        dices.append(2 * (truth & mask).sum() / (truth.sum() + mask.sum()))
    assert Certainty.of(torch.from_numpy(p), BINARY).confidence == pytest.approx(np.mean(dices), abs=0.003)


def test_sizes_are_written_and_read(tmp_path: Path) -> None:
    image = ImageRecord(name="a", confidence=0.5, sizes={"lesion": Size(2.0, 1.0, 3.0, "mL")})
    text = json.dumps(image.model_dump(mode="json", exclude_none=True))
    assert json.loads(text)["sizes"] == {"lesion": {"mean": 2.0, "low": 1.0, "high": 3.0, "unit": "mL"}}
    assert ImageRecord.model_validate_json(text) == image
