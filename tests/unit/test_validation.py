"""Validation by sampling: what is scored is what segmenting would decide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from medsegdiff.data.loader import PreparedCases
from medsegdiff.data.transforms import Placement, Prepared
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


class _One(PreparedCases):
    def __init__(self, case: Prepared) -> None:
        self.case = case

    def __getitem__(self, name: str) -> Prepared:
        return self.case


@pytest.mark.parametrize(("raters", "dice"), [(1, None), (2, 1.0)])
def test_masks_are_decided_for_the_majority_of_the_raters(tmp_path: Path, raters: int, dice: float | None) -> None:
    """Of two it is their union, which is not the best mask for one of them."""
    config = small_config("sampling.fusion=dice", "train.val_members=8", "train.val_steps=1", "data.channels=1")
    config = config.model_copy(update={"spec": config.spec.model_copy(update={"raters": raters})})
    size = (SIDE, SIDE)
    mask = torch.from_numpy(RATERS[:, None].astype(np.uint8))
    case = Prepared("a", torch.zeros(1, *size), mask, Placement(size, size, size))
    validator = Validator(config, _One(case), ["a"], Accelerator(cpu=True))
    found = validator(_OneOfTheRaters(stride=16), tmp_path / "cases.png")["dice"]
    assert found == pytest.approx(dice) if dice else found < 1
