from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medsegdiff.config.data import Augmentation, DataConfig
from medsegdiff.config.run import TrainConfig
from medsegdiff.config.spec import Orientation
from medsegdiff.data.augment import Augment
from medsegdiff.data.cache import CaseFile
from medsegdiff.data.dataset import no_progress
from medsegdiff.data.loader import PreparedCases, TrainingStream, training_loader
from medsegdiff.data.open import open_source
from medsegdiff.data.transforms import prepare
from medsegdiff.seeding import derive_seed
from medsegdiff.training import reading
from tests.makers import as_told, write_png

SETS = pytest.mark.parametrize("kind", ["light", "strong", "nnunet"])


@pytest.mark.parametrize(("kind", "share"), [("light", 0.98), ("strong", 0.95), ("nnunet", 0.95)])
def test_image_and_masks_of_all_raters_move_together(kind: Augmentation, share: float) -> None:
    """The image is its own mask: wherever a pixel goes, image and masks must still agree, but for coarsened borders."""
    augment = Augment(48, kind)
    mask = torch.zeros(2, 1, 48, 48)
    mask[:, :, 8:24, 10:38] = 1
    for seed in range(40):
        image, moved = augment(6 * mask[0] - 3, mask, seed=seed)
        assert torch.equal(moved[0], moved[1])
        middle = (image.amax() + image.amin()) / 2  # gamma and contrast move both ends
        assert ((image[0] > middle).float() == moved[0, 0]).float().mean() > share


@SETS
def test_the_same_seed_does_the_same_and_another_does_not(kind: Augmentation) -> None:
    """Also right after another sample, and in another object, whatever was drawn before."""
    augment, image, mask = Augment(48, kind), torch.randn(3, 32, 32), (torch.rand(1, 1, 32, 32) > 0.5).float()
    first = [augment(image, mask, seed=seed) for seed in range(20)]
    other = Augment(48, kind)
    again = [other(image, mask, seed=seed) for seed in reversed(range(20))][::-1]
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1], b[1])
    assert len({a[0].numpy().tobytes() for a in first}) > 15


@pytest.mark.parametrize("augmentation", ["light", "strong"])
def test_images_are_shifted_and_scaled_along_both_axes(augmentation: str) -> None:
    mask = torch.zeros(1, 1, 48, 48)
    mask[:, :, 16:32, 16:32] = 1
    augment = Augment(48, augmentation, Orientation(mirrors=(False, False), turn=0.0))
    places = [augment(mask[0], mask, seed=seed)[1][0, 0].nonzero().float() for seed in range(40)]
    centres, sides = (
        torch.stack([of(dim=0) for of in found])
        for found in ([place.mean for place in places], [place.std for place in places])
    )
    assert (centres.std(dim=0) > 0.7).all()
    assert (sides.std(dim=0) > 0.3).all()


@SETS
def test_masks_stay_0_and_1_and_exclusive(kind: Augmentation) -> None:
    labels = torch.randint(3, (1, 32, 32))
    mask = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).float()
    augment = Augment(48, kind)
    for seed in range(40):
        _, moved = augment(torch.randn(1, 32, 32), mask, seed=seed)
        assert moved.unique().tolist() == [0, 1]
        assert torch.equal(moved.sum(dim=1), torch.ones(1, 32, 32))


def test_nnunets_set_comes_as_often_as_published() -> None:
    """Moves that no mirror makes: a rotation or another scale, 1 − .8². What changes grey values alone: 1 − the product
    of what leaves them."""
    augment = Augment(32, "nnunet")
    image, mask = torch.randn(1, 32, 32), torch.zeros(1, 1, 32, 32)
    mask[0, 0, 3:9, 5:21] = 1
    mirrored = {mask.flip(axes).numpy().tobytes() for axes in ((), (-1,), (-2,), (-1, -2))}
    values = image.sort(dim=-1).values.flatten().sort().values
    moved = changed = 0
    for seed in range(600):
        image_now, mask_now = augment(image, mask, seed=seed)
        turned = mask_now.numpy().tobytes() not in mirrored
        moved += turned
        changed += not turned and not torch.equal(image_now.flatten().sort().values, values)
    kept = 0.9 * 0.8 * 0.85 * 0.85 * 0.75 * 0.9 * 0.7
    assert moved / 600 == pytest.approx(1 - 0.8**2, abs=0.06)
    assert changed / (600 - moved) == pytest.approx(1 - kept, abs=0.06)


def test_nnunets_set_scales_both_axes_alike_between_07_and_14() -> None:
    zoom = Augment(64, "nnunet").transform.transforms[1]
    image, mask = torch.zeros(1, 64, 64), torch.zeros(1, 64, 64)
    mask[:, 24:40, 24:40] = 1
    zoom.set_random_state(seed=0)
    sides = []
    for _ in range(200):
        moved = zoom({"image": image, "mask": mask})["mask"][0]
        sides.append([int(moved.amax(dim=axis).sum()) for axis in (0, 1)])
    assert all(abs(a - b) <= 1 for a, b in sides)
    assert min(a for a, _ in sides) == pytest.approx(0.7 * 16, abs=1.5)
    assert max(a for a, _ in sides) == pytest.approx(1.4 * 16, abs=1.5)


@SETS
def test_classes_that_exclude_each_other_are_kept_and_moved_as_one_map(tmp_path: Path, kind: Augmentation) -> None:
    """Truth: each class moved as a mask of its own."""
    blocks = np.random.default_rng(0).integers(0, 5, (4, 4), dtype=np.uint8)
    for number in range(4):
        image = np.random.default_rng(number).integers(0, 255, (32, 32), dtype=np.uint8)
        write_png(tmp_path / "images" / f"c{number}.png", image)
        write_png(tmp_path / "masks" / f"c{number}.png", np.kron(np.roll(blocks, number, 0), np.ones((8, 8), np.uint8)))
    config = DataConfig(image_size=32, augmentation=kind)
    source = open_source(tmp_path, config)
    told = as_told(config, channels=1, labels=source.info.labels)
    cases, moving = PreparedCases(source, told, stride=16), Augment(32, kind)
    name = source.info.names("train")[0]
    one_hot = prepare(source.load(name), told, stride=16)
    assert one_hot.mask.shape[1] == 5
    assert torch.equal(cases[name].mask, one_hot.mask)
    assert cases.kept(name).mask.nbytes == one_hot.mask.nbytes / 5
    stream = TrainingStream(cases, [name], seed=0, augment=True)
    for position in range(20):
        image, mask = moving(one_hot.image, one_hot.mask.float(), seed=derive_seed(0, "augment", position))
        assert torch.equal(stream[position]["mask"], mask[0])
        assert torch.equal(stream[position]["image"], image)


@pytest.fixture(params=["light", "nnunet"])
def stream(request: pytest.FixtureRequest) -> TrainingStream:
    config = DataConfig(image_size=32, augmentation=request.param)
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
    first, second = ([stream._name(10 * epoch + place) for place in range(10)] for epoch in (0, 1))
    assert sorted(first) == sorted(second) == sorted(stream.names)
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


def test_processes_of_a_machine_see_what_the_others_have_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each prepares its share; the files of others come as they are sent, pickled."""
    config = DataConfig(image_size=32)
    source = open_source("phantom", config)
    told, info = as_told(config, channels=1), source.info
    names = info.names("train")[:7]
    few = replace(info, split=dict.fromkeys(names, "train") | {names[0]: "val"})
    ours, theirs = (PreparedCases(source, told, stride=16, sharing=2) for _ in range(2))
    sent: dict[int, CaseFile] = {}
    for process, cases in enumerate((theirs, ours)):
        monkeypatch.setattr(reading, "gather_object", lambda _: [sent.get(0, CaseFile(1.0)), CaseFile(1.0)])
        reading.read_together(cases, few, [0, 1], process=process, track=no_progress)
        sent[process] = pickle.loads(pickle.dumps(cases.own))
    assert [len(theirs.own), len(ours.own), ours.num_kept] == [4, 3, 7]
    loaded: list[str] = []
    monkeypatch.setattr(source, "load", loaded.append)
    alone = PreparedCases(open_source("phantom", config), told, stride=16)
    for name in names:
        assert torch.equal(ours[name].image, alone[name].image)
        assert torch.equal(ours[name].mask, alone[name].mask)
    assert not loaded
