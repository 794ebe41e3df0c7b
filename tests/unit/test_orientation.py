"""Which mirrors and turns make images that might be there, found out from the images about their structures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medsegdiff.config.data import DataConfig
from medsegdiff.config.spec import Orientation
from medsegdiff.data.augment import Augment
from medsegdiff.data.dataset import DataInfo
from medsegdiff.data.loader import PreparedCases
from medsegdiff.data.orientation import orientation_of
from medsegdiff.data.placement import Placement
from medsegdiff.data.transforms import Prepared
from medsegdiff.inference.walk import MIRRORS, mirrors_of
from medsegdiff.training.train import oriented
from tests.makers import disc, small_config

SIDE = 64
ALL = slice(None)


def images(places: list[tuple[float, float]], *, seed: int = 0) -> list[Prepared]:
    """A disc somewhere, with a bright spot beside it: where, in units of its radius, the places say in turn."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(40):
        centre, radius = rng.uniform(26, 38, size=2), rng.uniform(6, 9)
        beside = centre + 1.2 * radius * np.array(places[index % len(places)])
        inside = disc((SIDE, SIDE), tuple(centre), radius)
        image = inside + 1.5 * disc((SIDE, SIDE), tuple(beside), 0.5 * radius) + rng.normal(0, 0.3, (SIDE, SIDE))
        mask = torch.from_numpy(inside[None, None].astype(np.uint8))
        placement = Placement((SIDE, SIDE), (SIDE, SIDE), (SIDE, SIDE))
        found.append(Prepared(str(index), torch.from_numpy(image[None].astype(np.float32)), mask, placement))
    return found


LEFT, RIGHT, ABOVE, BELOW = (0.0, -1.0), (0.0, 1.0), (-1.0, 0.0), (1.0, 0.0)


@pytest.mark.parametrize(
    ("places", "mirrors", "free_to_turn"),
    [
        ([LEFT], (False, True), False),
        ([ABOVE], (True, False), False),
        ([LEFT, RIGHT], (True, True), False),
        ([LEFT, RIGHT, ABOVE, BELOW], (True, True), True),
    ],
)
def test_what_always_lies_on_one_side_forbids_to_turn_it_to_the_other(
    places: list[tuple[float, float]], mirrors: tuple[bool, bool], free_to_turn: bool
) -> None:
    found = orientation_of(images(places), DataConfig(), structures=ALL)
    assert found.mirrors == mirrors
    assert (found.turn == 180) == free_to_turn


def test_of_too_few_images_nothing_is_concluded_and_what_is_asked_is_done() -> None:
    assert orientation_of(images([LEFT])[:5], DataConfig(), structures=ALL) == Orientation()
    assert orientation_of(images([LEFT]), DataConfig(orientation="free"), structures=ALL) == Orientation()
    fixed = orientation_of(images([LEFT, RIGHT, ABOVE, BELOW]), DataConfig(orientation="fixed"), structures=ALL)
    assert (fixed.mirrors, fixed.turn) == ((False, False), 20.0)


@pytest.mark.parametrize("augmentation", ["light", "strong", "nnunet"])
def test_augmentation_keeps_to_it(augmentation: str) -> None:
    image = torch.zeros(1, 48, 48)
    image[:, 20:28, 4:14] = 5.0  # far to the left, in the middle
    mask = (image > 0).float()[None]
    kept = Augment(48, augmentation, Orientation(mirrors=(False, True), turn=20.0))
    free = Augment(48, augmentation)
    columns = [
        [float(of(image, mask, seed=seed)[1][0, 0].nonzero()[:, 1].float().mean()) for seed in range(30)]
        for of in (kept, free)
    ]
    assert max(columns[0]) < 24
    assert max(columns[1]) > 30


def test_members_see_no_mirror_that_training_has_not_used() -> None:
    config = small_config("data.task=binary", "sampling.views=4")

    def seen(mirrors: tuple[bool, bool]) -> list[tuple[int, ...]]:
        spec = config.spec.model_copy(update={"orientation": Orientation(mirrors=mirrors)})
        return mirrors_of(config.sampling, config.model_copy(update={"spec": spec}))

    assert seen((True, True)) == list(MIRRORS)
    assert seen((False, True)) == [(), (-2,)]
    assert seen((False, False)) == [()]
    assert mirrors_of(config.sampling, small_config("data.task=binary", "data.augment=false")) == [()]


class _Slices(PreparedCases):
    """One of twenty slices holds a structure."""

    def __init__(self, structured: list[Prepared]) -> None:
        self.structured = structured

    def __getitem__(self, name: str) -> Prepared:
        volume, index = map(int, name.split("/"))
        case = self.structured[volume]
        assert case.mask is not None
        return case if index == 7 else Prepared(name, case.image, torch.zeros_like(case.mask), case.placement)


def test_of_volumes_slices_with_a_structure_are_looked_at() -> None:
    found = images([LEFT])[:20]
    slices = {str(volume): tuple(f"{volume}/{index:02d}" for index in range(20)) for volume in range(len(found))}
    info = DataInfo(
        1,
        small_config().spec.labels,
        ("reference",),
        dict.fromkeys(slices, "train"),
        slices,
        foreground=frozenset(f"{volume}/07" for volume in slices),
    )
    config = oriented(small_config(), _Slices(found), info, begun=None)
    assert config.spec.orientation.mirrors == (False, True)
