from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medsegdiff.config.data import DataConfig
from medsegdiff.config.run import TrainConfig
from medsegdiff.data.loader import Augment, PreparedCases, TrainingStream, training_loader
from medsegdiff.data.open import open_source
from medsegdiff.data.transforms import prepare
from tests.makers import as_told


def test_image_and_masks_of_all_raters_move_together() -> None:
    """The image is its own mask: wherever a pixel goes, image and masks must still agree."""
    augment = Augment(48)
    mask = torch.zeros(2, 1, 48, 48)
    mask[:, :, 8:24, 10:38] = 1
    for seed in range(12):
        image, moved = augment(6 * mask[0] - 3, mask, seed=seed)
        assert torch.equal(moved[0], moved[1])
        assert ((image[0] > 0).float() == moved[0, 0]).float().mean() > 0.98


def test_the_same_seed_does_the_same_and_another_does_not() -> None:
    augment, image, mask = Augment(48), torch.randn(3, 32, 32), (torch.rand(1, 1, 32, 32) > 0.5).float()
    a, b, c = (augment(image, mask, seed=s) for s in (5, 5, 6))
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])
    assert not torch.equal(a[0], c[0])


def test_masks_stay_0_and_1_and_exclusive() -> None:
    labels = torch.randint(3, (1, 32, 32))
    mask = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).float()
    for seed in range(8):
        _, moved = Augment(48)(torch.randn(1, 32, 32), mask, seed=seed)
        assert torch.equal(moved.sum(dim=1), torch.ones(1, 32, 32))


@pytest.fixture
def stream() -> TrainingStream:
    config = DataConfig(image_size=32)
    source = open_source("phantom", config)
    cases = PreparedCases(source, as_told(config, channels=1), stride=16)
    return TrainingStream(cases, source.info.names("train")[:10], seed=0, augment=True)


def test_a_sample_follows_from_its_position(stream: TrainingStream) -> None:
    order = [3, 17, 3, 25]
    samples = [stream[i] for i in order]
    assert torch.equal(samples[0]["image"], samples[2]["image"])
    assert torch.equal(samples[0]["mask"], samples[2]["mask"])
    assert [s["position"] for s in samples] == order


def test_every_epoch_shows_every_case_once_in_another_order(stream: TrainingStream) -> None:
    first, second = stream._order(0), stream._order(1)
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_all_raters_get_their_turn() -> None:
    config = DataConfig(image_size=32)
    source = open_source("phantom", config)
    name = next(n for n in source.info.names("train") if len(np.unique(source.load(n).mask.reshape(5, -1), axis=0)) > 2)
    cases = PreparedCases(source, as_told(config, channels=1), stride=16)
    stream = TrainingStream(cases, [name], seed=0, augment=False)
    seen = {stream[i]["mask"].byte().numpy().tobytes() for i in range(60)}
    assert seen == {m.numpy().tobytes() for m in cases[name].mask}


def test_further_draws_see_other_raters_moved_alike() -> None:
    """Truth: the raters' own masks, each of them once where as many draws are asked for."""
    config = DataConfig(image_size=32)
    source = open_source("phantom", config)
    name = next(n for n in source.info.names("train") if len(np.unique(source.load(n).mask.reshape(5, -1), axis=0)) > 2)
    cases = PreparedCases(source, as_told(config, channels=1), stride=16)
    still = TrainingStream(cases, [name], seed=0, augment=False, raters=5)
    drawn = sorted(mask.byte().numpy().tobytes() for mask in [still[4]["mask"], *still[4]["others"]])
    assert drawn == sorted(mask.numpy().tobytes() for mask in cases[name].mask)
    assert torch.equal(still[4]["mask"], TrainingStream(cases, [name], seed=0, augment=False)[4]["mask"])
    moved = TrainingStream(cases, [name], seed=0, augment=True, raters=5)[4]
    core = torch.stack([moved["mask"], *moved["others"]]).amin(dim=0)  # what all draw stays what all draw
    assert core.sum() > 10


def test_loading_from_the_middle_gives_the_same_batches(stream: TrainingStream) -> None:
    config = TrainConfig(batch_size=3)
    whole = list(training_loader(stream, config, start=0, num_batches=4))
    rest = list(training_loader(stream, config, start=6, num_batches=2))
    for a, b in zip(whole[2:], rest, strict=True):
        assert torch.equal(a["image"], b["image"])
        assert a["positions"] == b["positions"]


def test_workers_change_nothing(stream: TrainingStream) -> None:
    alone = next(iter(training_loader(stream, TrainConfig(batch_size=4), start=4, num_batches=1)))
    helped = next(iter(training_loader(stream, TrainConfig(batch_size=4, num_workers=1), start=4, num_batches=1)))
    assert torch.equal(alone["image"], helped["image"])


def test_cases_are_kept_up_to_the_limit(folder: Path) -> None:
    config = DataConfig(image_size=32, cache_gb=1e-5)  # room for one case of 32×32
    cases = PreparedCases(open_source(folder, config), as_told(config, channels=1), stride=16)
    first, second = "case00", "case01"
    asked: list[str] = []
    load = cases.source.load
    cases.source.load = lambda name: asked.append(name) or load(name)
    for name in (first, first, second, second):
        assert torch.equal(cases[name].image, prepare(load(name), as_told(config, channels=1), stride=16).image)
    assert asked == [first, second, second]
    assert cases.num_kept == 1
