"""``members="auto"``: members are added until ten more hardly change the fused mask."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from medsegdiff import Segmenter
from medsegdiff.errors import ConfigError
from medsegdiff.inference.adaptive import together, until_stable
from medsegdiff.inference.request import Request
from medsegdiff.metrics.overlap import dice
from medsegdiff.models.base import DiffusionModel
from medsegdiff.paper.costs import costs
from medsegdiff.types import Condition
from tests.integration.test_volumes import Threshold, phantom
from tests.makers import small_config
from tests.program import call
from tests.volumes import save


class Doubtful(Threshold):
    """Members draw the border somewhere on a slope, each by its noise: bright is certain, grey is not."""

    def denoise(self, x_t: Tensor, time: Tensor, condition: Condition) -> Tensor:
        return condition.logits / 4 + 40 * x_t.mean(dim=(1, 2, 3), keepdim=True)


def doubtful(*, batch_size: int = 5, model: type[DiffusionModel] = Doubtful) -> Segmenter:
    config = small_config(
        *(
            "data.channels=1",
            "data.task=binary",
            "data.classes=[lesion]",
            "data.resize=none",
            "diffusion.signal_scale=1",
        ),
        *("sampling.steps=1", f"sampling.batch_size={batch_size}"),
    )
    return Segmenter(model(), config, device="cpu", precision="fp32")


def slope(seed: int = 0) -> np.ndarray:
    """Rising brightness with some grain."""
    grain = np.random.default_rng(seed).normal(0, 4, (32, 48))
    return np.clip(np.linspace(0, 255, 48)[None] + grain, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("fusion", ["staple", "majority", "mean"])
def test_it_stops_as_soon_as_the_rule_holds_and_not_before(fusion: str) -> None:
    """The rule, from ensembles of 5, 10, 15 … members, each compared with that of ten less."""
    segmenter, images = doubtful(batch_size=100), [slope(seed) for seed in range(2)]
    found = [len(one.members) for one in segmenter(images, members="auto", fusion=fusion)]
    fused = {n: segmenter(images, members=n, fusion=fusion) for n in range(5, max(found) + 1, 5)}
    for index, number in enumerate(found):
        masks = {n: results[index].mask > 0 for n, results in fused.items()}
        stable = [n for n in masks if n > 10 and dice(masks[n], masks[n - 10]) > 0.999]
        assert number == (stable or [100])[0]
    assert max(found) > 15 or fusion == "mean"  # which rests on what members expect, and comes to rest at once


def test_auto_is_exactly_as_many_members_asked_for() -> None:
    segmenter = doubtful()
    found = segmenter(slope(), members="auto", seed=4)
    same = segmenter(slope(), members=len(found.members), seed=4)
    assert 15 <= len(found.members) <= 100
    for name in ("mask", "probability", "members", "anchor", "sensitivity", "specificity"):
        assert np.array_equal(getattr(found, name), getattr(same, name)), name
    assert np.array_equal(found.uncertainty.std, same.uncertainty.std)


def test_a_member_does_not_depend_on_the_batch_in_auto_either() -> None:
    five, three = (doubtful(batch_size=size)(slope(), members="auto") for size in (5, 3))
    assert np.array_equal(five.members, three.members)


def test_members_that_agree_stop_at_15() -> None:
    assert len(doubtful(model=Threshold)(slope(), members="auto").members) == 15


def masks(*areas: int) -> Iterator[np.ndarray]:
    """Masks of one structure with so many pixels."""
    return iter([(np.arange(4000) < area).reshape(1, 40, 100) for area in areas])


def test_the_rule_by_hand() -> None:
    """Dice of 2000 and 2000 + d pixels is 4000 / (4000 + d): above 0.999 for d ≤ 4."""
    assert until_stable(masks(2000, 1, 2004, 3, 4)) == 15
    assert until_stable(masks(2000, 1000, 2005, 1001, 3)) == 20
    assert until_stable(masks(*range(100, 4000, 190)[:20])) == 100
    assert until_stable(masks(0, 9, 0)) == 15  # two empty masks are equal


def test_the_mean_over_structures_decides() -> None:
    before, now = (np.arange(4000).reshape(1, 4000) < np.array([[2000], [n]]) for n in (2000, 2006))
    assert until_stable(iter([before, before, now, before])) == 15  # one is 0.9985, the other 1
    before, now = (np.arange(4000).reshape(1, 4000) < np.array([[n], [n]]) for n in (2000, 2006))
    assert until_stable(iter([before, before, now, now])) == 20


def test_structures_that_are_nowhere_make_no_change_smaller() -> None:
    """Of sixteen, one is there: that fifteen empty ones stay empty says nothing of it."""
    before, now = (np.arange(4000).reshape(1, 4000) < np.array([[n], *[[0]] * 15]) for n in (2000, 2006))
    assert until_stable(iter([before, before, now, now])) == 20


def test_slices_decide_together() -> None:
    """A slice of 10 pixels may change by one where 2000 others do not."""
    slices = [masks(2000, 2000, 2000, 2000), masks(10, 10, 11, 10)]
    assert until_stable(together(slices)) == 15
    assert until_stable(masks(10, 10, 11, 10)) == 20


@pytest.mark.parametrize("size", [(6, 5, 4), (9, 9, 12)])
def test_a_volume_has_one_number_and_is_as_if_it_were_asked_for(tmp_path: Path, size: tuple[int, int, int]) -> None:
    file = save(
        tmp_path / "a.nii.gz", phantom(size) * np.float32(90) + np.random.default_rng(0).random(size, np.float32)
    )
    segmenter = doubtful(batch_size=16)
    found = segmenter(file, members="auto")
    same = segmenter(file, members=len(found.members))
    assert 15 <= len(found.members) <= 100
    assert np.array_equal(found.mask, same.mask)
    assert np.array_equal(found.members, same.members)


def test_numbers_are_told(trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, data = trained
    called = (
        "segment",
        data / "images" / "case00.png",
        "--model",
        run,
        "--out",
        tmp_path / "out",
        "--steps",
        "1",
        "--fusion",
        "majority",
    )
    assert call(*called, "--members", "auto", "--json") == 0
    shown = capsys.readouterr()
    told = json.loads((tmp_path / "out" / "segment.json").read_text())
    numbers = [image["members"] for image in told["images"]]
    assert numbers == [image["members"] for image in json.loads(shown.out)["done"]]
    assert f"Members: mean {np.mean(numbers):.1f} ({min(numbers)}–{max(numbers)})." in shown.err
    assert (told["members"], told["sampling"]["members"]) == ("auto", 100)
    told["images"] = [{"name": "a", "members": 15}, {"name": "b", "members": 30}]
    (tmp_path / "out" / "segment.json").write_text(json.dumps(told))
    found = costs([tmp_path / "out"])
    assert (found["members"].mean, found["calls"].mean) == (22.5, 22.5)  # of one step


@pytest.mark.parametrize("wrong", ["0", "-3", "many", "2.5", ""])
def test_other_words_are_refused(
    wrong: str, trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, data = trained
    assert call("segment", data, "--model", run, "--out", tmp_path / "out", f"--members={wrong}") == 2
    assert "allowed are numbers from 1, and auto" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="at least 1, or 'auto'"):
        Request.of(small_config(), members="many")
