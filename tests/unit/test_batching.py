"""Images that go through a network together: what fits, the same results, and fewer where memory does not suffice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from medsegdiff import Segmenter
from medsegdiff.errors import ConfigError, OutOfMemoryError
from medsegdiff.inference import drawing, volume
from medsegdiff.inference.batching import MOST, BatchSize, fitting
from medsegdiff.inference.ensemble import EnsembleSampler
from medsegdiff.inference.request import Request
from medsegdiff.inference.resources import needs_of_picture
from medsegdiff.inference.segmentation import Segmentation

GB = 10**9
ASKED = {"members": 3, "steps": 2}


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.random((1, 40, 32), np.float32) for _ in range(5)]


@pytest.fixture(scope="module")
def one_by_one(segmenter: Segmenter, images: list[np.ndarray]) -> list[Segmentation]:
    return [segmenter(image, **ASKED) for image in images]


class Watched:
    """Counts what goes together, and lacks memory where that is more than there is room for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, room: int = 10**6) -> None:
        self.images: list[int] = []
        draw = EnsembleSampler.draw

        def drawn(sampler: EnsembleSampler, image: torch.Tensor, keys: Sequence[str], *, seed: int) -> object:
            if min(len(image) * sampler.sampling.drawn, sampler.sampling.batch_size) > room:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
            self.images.append(len(image))
            return draw(sampler, image, keys, seed=seed)

        monkeypatch.setattr(EnsembleSampler, "draw", drawn)


def assert_same(found: Sequence[Segmentation], expected: Sequence[Segmentation]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one.mask, other.mask)
        assert np.array_equal(one.members, other.members)
        assert np.allclose(one.probability, other.probability, atol=1e-6)


@pytest.mark.parametrize(("size", "together"), [(1, [1, 1, 1, 1, 1]), (6, [2, 2, 1]), (12, [4, 1]), (100, [5])])
def test_images_that_go_together_get_what_each_gets_alone(
    segmenter: Segmenter,
    images: list[np.ndarray],
    one_by_one: list[Segmentation],
    size: int,
    together: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched = Watched(monkeypatch)
    assert_same(segmenter(images, batch_size=size, **ASKED), one_by_one)
    assert watched.images == together


@pytest.mark.parametrize("room", [1, 4, 7])
def test_where_memory_does_not_suffice_fewer_go_together_with_the_same_results(
    segmenter: Segmenter,
    images: list[np.ndarray],
    one_by_one: list[Segmentation],
    room: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched = Watched(monkeypatch, room=room)
    assert_same(segmenter(images, batch_size=15, **ASKED), one_by_one)
    assert sum(watched.images) == len(images)


def test_an_image_for_which_nothing_suffices_is_passed_over(
    segmenter: Segmenter,
    images: list[np.ndarray],
    one_by_one: list[Segmentation],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make, failed = drawing.part_of, []

    def lacking(*given: object, name: str, **asked: object) -> object:
        if name.startswith("image_2"):
            torch.empty(10**15)
        return make(*given, name=name, **asked)

    monkeypatch.setattr(drawing, "part_of", lacking)
    found = list(segmenter.stream(images, refused=lambda case, error: failed.append(str(error)), **ASKED))
    assert_same(found, [*one_by_one[:2], *one_by_one[3:]])
    assert len(failed) == 1
    assert "not enough memory" in failed[0]
    assert "Draw fewer members" in failed[0]
    with pytest.raises(OutOfMemoryError, match="image_2"):
        segmenter(images, **ASKED)
    Watched(monkeypatch, room=0)
    assert not list(segmenter.stream(images[:2], refused=lambda case, error: failed.append(str(error)), **ASKED))
    assert len(failed) == 3


def test_large_pictures_go_alone(
    segmenter: Segmenter, images: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "TOGETHER", 40 * 32 + 1)
    watched = Watched(monkeypatch)
    list(segmenter.stream(images, batch_size=100, **ASKED))
    assert watched.images == [2, 2, 1]


def test_a_gpu_takes_what_fits_and_no_fewer() -> None:
    assert fitting(16, masks=10, took=10 * GB, free=100 * GB) == 50  # half of what is free
    assert fitting(16, masks=40, took=16 * GB, free=100 * GB) == 50  # no more than a batch went together
    assert fitting(16, masks=10, took=10 * GB, free=8 * GB) == 16
    assert fitting(16, masks=10, took=0, free=100 * GB) == MOST
    cpu = BatchSize(16, torch.device("cpu"), asked=False)
    with cpu.watched(16):
        pass
    assert (cpu.size, cpu.halve(), cpu.size) == (16, True, 8)
    assert [cpu.halve() for _ in range(4)] == [True, True, True, False]


def test_a_batch_has_one_mask_at_least(segmenter: Segmenter) -> None:
    with pytest.raises(ConfigError, match="batch_size is 0; it must be at least 1"):
        Request.of(segmenter.config, batch_size=0)


def test_a_large_picture_tells_what_it_needs_before_it_is_segmented(
    segmenter: Segmenter, images: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volume, "needs_of_picture", lambda shape, **_: needs_of_picture((4000, 6000), **_))
    watched, told = Watched(monkeypatch), []
    results = segmenter.results(images[:1], Request.of(segmenter.config, **ASKED), noted=lambda text: told.append(text))
    monkeypatch.setattr(drawing.Drawing, "_drawn", lambda *_: pytest.fail("drawn") if not told else torch.empty(10**15))
    with pytest.raises(OutOfMemoryError):
        next(results)
    assert told[0].startswith("image_0")
    assert "GB of memory beyond the model" in told[0]
    assert not watched.images


def test_what_a_picture_needs_grows_with_all_but_stays_far_below_all_members() -> None:
    asked = {"channels": 3, "classes": 3, "members": 10, "task": "exclusive"}
    needs = needs_of_picture((4000, 6000), **asked)
    assert 1 * GB < needs.memory < 2 * GB  # all members alone, at once, are 2.9 GB
    pixels = 4000 * 6000
    assert needs.disk == pixels * (10 + 2 * 3 * 4 + 3 * 4)  # label maps; two probabilities; three maps
    assert needs_of_picture((400, 600), **asked).disk == 0
    more = [{"members": 20}, {"channels": 40}]
    assert all(needs_of_picture((4000, 6000), **(asked | other)).memory > needs.memory for other in more)
    many = needs_of_picture((14000, 14000), **(asked | {"classes": 16, "channels": 1, "at_once": False, "maps": 1}))
    few = needs_of_picture((14000, 14000), **(asked | {"channels": 1, "at_once": False, "maps": 1}))
    assert many.disk - few.disk == 14000**2 * 2 * 13 * 4  # probabilities lie in files, and so does all that is large
    assert few.memory == many.memory < 5 * GB
