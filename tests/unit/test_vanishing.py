"""Structures that the model grid has no room for: they are said, and never count as a perfect empty case."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from medsegdiff.config.data import DataConfig
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.data.cache import CaseFile
from medsegdiff.data.dataset import no_progress
from medsegdiff.data.inspect import inspect_folder
from medsegdiff.data.loader import PreparedCases
from medsegdiff.data.open import open_source
from medsegdiff.data.placement import Placement, place
from medsegdiff.data.transforms import Prepared, prepare, to_grid
from medsegdiff.data.vanishing import _solid
from medsegdiff.errors import ConfigError
from medsegdiff.labels import Labels
from medsegdiff.models.base import DiffusionModel
from medsegdiff.training.reading import read_all
from medsegdiff.training.trainer import as_good
from medsegdiff.training.validation import Validator
from medsegdiff.types import Case, Condition, Geometry
from tests.makers import small_config, write_png

SIDE = 256
NATIVE = Geometry((SIDE, SIDE), (1.0, 1.0))


def spot(size: int, *, side: int = SIDE) -> np.ndarray:
    mask = np.zeros((side, side), np.uint8)
    mask[101 : 101 + size, 61 : 61 + size] = 1
    return mask


def config_for(labels: Labels, *overrides: str) -> ResolvedConfig:
    config = small_config("data.image_size=32", "data.channels=1", *overrides)
    return config.model_copy(update={"spec": config.spec.model_copy(update={"labels": labels})})


def lost(mask: np.ndarray, labels: Labels, ignored: np.ndarray | None = None) -> list[int]:
    """Channels of a case that are lost on the way from 256 to 32 pixels."""
    case = Case("a", np.zeros((1, SIDE, SIDE), np.float32), mask, NATIVE, ignored=ignored)
    found = prepare(case, config_for(labels), stride=16).lost
    return [] if found is None else found.tolist()


def test_what_covers_less_than_half_of_any_pixel_is_lost() -> None:
    assert lost(spot(4)[None, None], Labels()) == [1]
    assert lost(spot(12)[None, None], Labels()) == []
    assert lost(np.zeros((1, 1, SIDE, SIDE), np.uint8), Labels()) == []  # it never held anything
    both = np.stack([spot(4), spot(12)])[None]
    assert lost(both, Labels("regions", ("small", "large"))) == [1, 0]
    classes = Labels("exclusive", ("background", "small", "large"))
    inner, outer = spot(4), spot(40) - spot(4)
    assert lost(np.stack([1 - spot(40), inner, outer])[None], classes) == [0, 1, 0]


def test_what_is_lost_is_what_the_majority_drew_where_somebody_labelled() -> None:
    nothing = np.zeros((SIDE, SIDE), np.uint8)
    one, two = np.stack([spot(4), nothing, nothing])[:, None], np.stack([spot(4), spot(4), nothing])[:, None]
    assert lost(one, Labels()) == []
    assert lost(two, Labels()) == [1]
    assert lost(spot(4)[None, None], Labels(), ignored=spot(9)[None]) == []


def test_what_is_lost_is_kept_with_the_case() -> None:
    size = (8, 8)
    case = Prepared("a", torch.zeros(1, *size), None, Placement(size, size, size), lost=torch.tensor([0, 1]).byte())
    file = CaseFile(1e9)
    file.add(case, "a")
    assert file["a"].lost is not None
    assert file["a"].lost.tolist() == [0, 1]


class _Draws(DiffusionModel):
    """Draws all of the image, or nothing."""

    def __init__(self, *, everything: bool) -> None:
        super().__init__(stride=16)
        self.logit = 20.0 if everything else -20.0

    def condition(self, image: torch.Tensor) -> Condition:
        return Condition(None, deep=(image,))

    def denoise(self, x_t: torch.Tensor, time: torch.Tensor, condition: Condition) -> torch.Tensor:
        return torch.full_like(x_t, self.logit)


class _Given(PreparedCases):
    def __init__(self, cases: dict[str, Prepared]) -> None:
        self.cases = cases

    def __getitem__(self, name: str) -> Prepared:
        return self.cases[name]


@pytest.mark.parametrize("everything", [False, True])
def test_a_reference_that_was_lost_is_missed_whatever_is_drawn(tmp_path: Path, everything: bool) -> None:
    """So it chooses no weights: neither those that draw nothing nor others are better for it."""
    size = (32, 32)
    empty, full = torch.zeros(1, 1, *size).byte(), torch.ones(1, 1, *size).byte()
    place, image = Placement(size, size, size), torch.zeros(1, *size)
    gone = torch.ones(1).byte()
    cases = {
        "empty": Prepared("empty", image, empty, place),
        "full": Prepared("full", image, full, place),
        "lost": Prepared("lost", image, empty, place, lost=gone),
    }
    config = config_for(Labels(), "train.val_members=2", "train.val_steps=1")
    for name, expected in (("lost", 0), ("empty", not everything), ("full", everything)):
        validator = Validator(config, _Given(cases), [name], Accelerator(cpu=True))
        found = validator(_Draws(everything=everything), tmp_path / "cases.png")
        assert [found[key] for key in ("dice", "iou", "dice_member")] == [expected] * 3
    assert as_good([0.0, 0.0], [0.0, 0.0], gain=0.0)  # the newer are kept


def write_data(root: Path, sizes: list[int]) -> Path:
    for number, size in enumerate(sizes):
        noise = np.random.default_rng(number).integers(0, 99, (SIDE, SIDE), dtype=np.uint8)
        write_png(root / "images" / f"c{number}.png", noise)
        write_png(root / "masks" / f"c{number}.png", spot(size) * np.uint8(255))
    return root


@pytest.mark.parametrize(("sizes", "told"), [([4] * 8, "refused"), ([4, 4, *[40] * 6], "said"), ([40] * 8, "")])
def test_images_that_lose_structures_are_said_before_training(
    tmp_path: Path, sizes: list[int], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = write_data(tmp_path, sizes)
    config = config_for(Labels())
    source = open_source(data, config.data)
    info = source.info
    everywhere = type(info)(info.channels, info.labels, info.raters, dict.fromkeys(info.split, "train") | {"c0": "val"})
    cases = PreparedCases(source, config, stride=16)
    words = f"In {sizes.count(4)} of 8 images structures vanish at data.image_size=32"
    if told == "refused":
        with pytest.raises(ConfigError, match=words):
            read_all(cases, everywhere, config, track=no_progress)
        return
    with caplog.at_level(logging.WARNING):
        read_all(cases, everywhere, config, track=no_progress)
    assert (words in caplog.text) == (told == "said")


def test_checking_data_says_which_images_lose_structures(tmp_path: Path) -> None:
    data = write_data(tmp_path, [4, 40, 4, 0])
    (told,) = [text for text in inspect_folder(data, DataConfig(image_size=32)).remarks if "vanish" in text]
    assert "In 2 of 4 images" in told
    assert "c0, c2" in told
    for kept in (DataConfig(image_size=256), DataConfig(image_size=32, resize="none")):
        assert not [text for text in inspect_folder(data, kept).remarks if "vanish" in text]


@pytest.mark.parametrize("size", [(20, 20), (31, 20), (32, 7)])
def test_what_is_solid_is_never_lost_on_a_finer_grid(size: tuple[int, int]) -> None:
    """Then nothing is resized to find out."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        mask = np.zeros(size, np.uint8)
        top, left = rng.integers(0, size[0] - 2), rng.integers(0, size[1] - 2)
        mask[top : top + 3, left : left + 3] = 1
        share = to_grid(torch.from_numpy(mask)[None].float(), place(size, DataConfig(image_size=32), 1))
        assert share.max() >= 0.5
        assert _solid(mask > 0)
        assert not _solid((mask > 0) & (np.indices(size).sum(axis=0) % 3 > 0))
