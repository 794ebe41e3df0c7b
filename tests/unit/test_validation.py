"""Validation by sampling: what is scored is what segmenting would decide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from medsegdiff.data.loader import PreparedCases
from medsegdiff.data.placement import Placement
from medsegdiff.data.transforms import Prepared
from medsegdiff.errors import DataError
from medsegdiff.models.base import DiffusionModel
from medsegdiff.training.validation import Validator
from medsegdiff.types import Condition
from tests.makers import disc, small_config

SIDE = 32
RATERS = np.stack([disc((SIDE, SIDE), (16, 16), 6), disc((SIDE, SIDE), (16, 16), 9)])


class _OneOfTheRaters(DiffusionModel):
    """Draws what one of two raters drew: of eight members five the smaller mask."""

    def condition(self, image: torch.Tensor) -> Condition:
        return Condition(None, deep=(image,))

    def denoise(self, x_t: torch.Tensor, time: torch.Tensor, condition: Condition) -> torch.Tensor:
        which = (torch.arange(len(x_t)) % 8 > 4).long()
        return 40 * torch.from_numpy(RATERS).float()[which, None] - 20


class _Some(PreparedCases):
    def __init__(self, *cases: Prepared) -> None:
        self.of_name = {case.name: case for case in cases}

    def __getitem__(self, name: str) -> Prepared:
        return self.of_name[name]


@pytest.mark.parametrize(("raters", "dice"), [(1, None), (2, 1.0)])
def test_masks_are_decided_for_the_majority_of_the_raters(tmp_path: Path, raters: int, dice: float | None) -> None:
    """Of two it is their union, which is not the best mask for one of them."""
    config = small_config("sampling.fusion=dice", "train.val_members=8", "train.val_steps=1", "data.channels=1")
    config = config.model_copy(update={"spec": config.spec.model_copy(update={"raters": raters})})
    size = (SIDE, SIDE)
    mask = torch.from_numpy(RATERS[:, None].astype(np.uint8))
    case = Prepared("a", torch.zeros(1, *size), mask, Placement(size, size, size))
    validator = Validator(config, _Some(case), ["a"], Accelerator(cpu=True))
    found = validator(_OneOfTheRaters(stride=16), tmp_path / "cases.png")["dice"]
    assert found == pytest.approx(dice) if dice else found < 1


def test_a_case_without_a_labelled_pixel_is_not_scored(tmp_path: Path) -> None:
    """All that is drawn there would be cut away, and nothing agrees with nothing."""
    config = small_config("train.val_members=2", "train.val_steps=1", "data.channels=1")
    size, mask = (SIDE, SIDE), torch.from_numpy(RATERS[:1, None].astype(np.uint8))
    within = Placement(size, (SIDE // 2, SIDE), size)  # the rest of the grid is padding
    missed = Prepared("missed", torch.zeros(1, *size), 1 - mask, Placement(size, size, size))
    unlabelled = torch.zeros(1, *size, dtype=torch.uint8)
    unlabelled[:, within.offset[0] :][:, : SIDE // 2] = 1
    empty = Prepared("unlabelled", torch.zeros(1, *size), mask, within, unlabelled)
    model, cases = _OneOfTheRaters(stride=16), _Some(missed, empty)
    found = Validator(config, cases, ["missed", "unlabelled"], Accelerator(cpu=True))(model, tmp_path / "cases.png")
    assert found["dice"] < 0.5
    with pytest.raises(DataError, match=r"1 validation cases \(unlabelled\)"):
        Validator(config, cases, ["unlabelled"], Accelerator(cpu=True))(model, tmp_path / "cases.png")


def test_what_is_drawn_around_the_image_is_not_scored(tmp_path: Path) -> None:
    config = small_config("train.val_members=2", "train.val_steps=1", "data.channels=1")
    size, within = (SIDE, SIDE), Placement((SIDE, SIDE), (8, SIDE), (SIDE, SIDE))
    mask = torch.from_numpy(RATERS[:1, None].astype(np.uint8))
    mask[:, :, : within.offset[0]] = mask[:, :, within.offset[0] + 8 :] = 0
    case = Prepared("flat", torch.zeros(1, *size), mask, within)
    found = Validator(config, _Some(case), ["flat"], Accelerator(cpu=True))(_OneOfTheRaters(stride=16), tmp_path / "a")
    assert found["dice"] == found["dice_member"] == 1
