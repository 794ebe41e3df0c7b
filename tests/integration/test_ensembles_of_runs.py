"""Several runs segment together. Truth: the files that each of them writes alone, and sums by hand."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from medsegdiff import Segmenter
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.errors import ConfigError
from medsegdiff.evaluation import evaluate
from medsegdiff.fusion.mixture import Mixture
from medsegdiff.inference.calibration import Calibration
from medsegdiff.inference.request import Request
from medsegdiff.inference.runs import Trained, common_split
from medsegdiff.io.image import read_map
from medsegdiff.io.raster import read_mask
from medsegdiff.metrics.intervals import Stretch
from medsegdiff.models.base import DiffusionModel, budget, build_model
from medsegdiff.models.checkpoint import BEST, save_config, save_weights
from medsegdiff.paper.costs import costs
from medsegdiff.types import Condition
from tests.makers import make_folder, randomised, small_config, small_network
from tests.program import call
from tests.volumes import save

DATA = ("data.channels=1", "data.task=binary", "data.classes=[lesion]")
PLAIN = ("sampling.mode=mean", "sampling.steps=1", "sampling.members=1", "sampling.views=2", "sampling.fusion=mean")
LEVEL = 1 / 65535
"""Of the grey of a map on disk."""


def write_run(folder: Path, config: ResolvedConfig, *, seed: int, calibration: Calibration | None = None) -> Path:
    """What a training leaves behind, with weights of chance."""
    folder.mkdir(parents=True)
    save_config(folder, config)
    save_weights(folder / BEST, randomised(build_model(config), seed).state_dict())
    if calibration is not None:
        calibration.save(folder)
    (folder / "split.csv").write_text("id,split\ncase00,test\ncase01,test\n")
    return folder


def plain(size: int = 32, *more: str) -> ResolvedConfig:
    return small_network("nnunet", *DATA, *PLAIN, f"data.image_size={size}", *more)


def drawing(size: int = 32, *more: str) -> ResolvedConfig:
    return small_config(*DATA, f"data.image_size={size}", *more)


def calibrated(
    config: ResolvedConfig, *, cases: int, weight: float = 1.0, slope: float, dependence: float
) -> Calibration:
    """Of the ensembles that the run gives where nothing is asked."""
    return Calibration(
        cases=cases,
        mixture=Mixture(weight=weight, slopes=(slope,), offsets=(0.1,)),
        stretch={"foreground": Stretch(0.5, 1.0)},
        dependence=dependence,
        sampling=Request.of(config).sampling,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("pictures") / "data", count=2)


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two networks without noise, on grids of their own, calibrated."""
    root, made = tmp_path_factory.mktemp("folds"), [plain(32), plain(48, "data.augment=true")]
    known = [
        calibrated(made[0], cases=9, slope=0.5, dependence=0.2),
        calibrated(made[1], cases=7, slope=2, dependence=0.4),
    ]
    return [write_run(root / f"fold{n}", made[n], seed=n, calibration=known[n]) for n in range(2)]


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two networks that draw, on grids of their own; the anchor alone is the probability of each."""
    root, made = tmp_path_factory.mktemp("seeds"), [drawing(32, "sampling.members=4"), drawing(48, "sampling.steps=2")]
    known = [calibrated(config, cases=9, slope=2, dependence=0.0) for config in made]
    return [write_run(root / f"seed{n}", made[n], seed=n, calibration=known[n]) for n in range(2)]


def segmented(runs: list[Path], data: Path, out: Path, *options: str) -> dict[str, object]:
    named = ",".join(map(str, runs))
    assert call("segment", data, "--model", named, "--out", out, "--write", "all", "-d", "cpu", "-q", *options) == 0
    return json.loads((out / "segment.json").read_text())


def test_networks_without_noise_are_members_and_their_mean_is_the_probability(
    folds: list[Path], data: Path, tmp_path: Path
) -> None:
    alone = [segmented([run], data, tmp_path / run.name) for run in folds]
    told = segmented(folds, data, tmp_path / "both")
    assert [part["members"] for part in told["images"]] == [2, 2]
    for name in ("case00", "case01"):
        maps = [read_map(tmp_path / run.name / "probability" / f"{name}.png") for run in folds]
        assert np.abs(maps[0] - maps[1]).max() > 0.05
        mean = np.mean(maps, axis=0)
        assert np.abs(read_map(tmp_path / "both" / "probability" / f"{name}.png") - mean).max() <= 2 * LEVEL
        drawn = [read_mask(tmp_path / "both" / "members" / f"0{n}" / "masks" / f"{name}.png") for n in range(2)]
        for member, run in zip(drawn, folds, strict=True):
            assert np.array_equal(member, read_mask(tmp_path / run.name / "masks" / f"{name}.png"))
        sure = np.abs(mean - 0.5) > LEVEL
        mask = read_mask(tmp_path / "both" / "masks" / f"{name}.png") > 0
        assert np.array_equal(mask[sure], mean[sure] > 0.5)
        entropy = -(mean * np.log2(mean) + (1 - mean) * np.log2(1 - mean))
        assert np.abs(read_map(tmp_path / "both" / "uncertainty" / f"{name}.png") - entropy).max() < 1e-3
    assert told["calibrated_on"] == 7
    assert "model" not in told
    assert told["dependence"] == pytest.approx(0.3)
    for number, (run, before) in enumerate(zip(told["runs"], alone, strict=True)):
        weights = (folds[number] / BEST).read_bytes()
        assert (run["folder"], run["weights"], run["network"]) == (str(folds[number]), "best", "nnunet")
        assert run["sha256"] == [hashlib.sha256(weights).hexdigest()]
        assert (run["members"], run["looks"], run["calls"]) == (1, 2, 2)
        assert before["runs"][0] | {"members": 1} == run
        assert before["model"] == {"folder": str(folds[number]), "weights": "best"}


def test_sizes_are_those_of_the_members_and_not_calibrated(folds: list[Path], data: Path) -> None:
    notes: list[str] = []
    segmenter = Segmenter.from_runs(folds, device="cpu", precision="fp32")
    image = data / "images" / "case00.png"
    (result,) = segmenter.results([image], segmenter.request(), noted=notes.append)
    areas = np.array([member.sum() for member in result.members], float)
    size = result.sizes()["lesion"]
    assert len(areas) == 2
    assert (size.mean, size.low, size.high) == pytest.approx((areas.mean(), *np.quantile(areas, [0.05, 0.95])))
    assert ["not calibrated" in note for note in notes] == [True]


def test_members_are_shared_out_and_are_what_each_run_draws_alone(seeds: list[Path], data: Path) -> None:
    """Member m is run m mod 2's member m; the anchor, and so the probability here, is the mean of both."""
    images = sorted((data / "images").iterdir())
    alone = [Segmenter.from_pretrained(run, device="cpu", precision="fp32")(images, members=5) for run in seeds]
    together = Segmenter.from_runs(seeds, device="cpu", precision="fp32")(images, members=5)
    for index, result in enumerate(together):
        parts = [of[index] for of in alone]
        assert len(result.members) == 5
        for number, member in enumerate(result.members):
            assert np.array_equal(member, parts[number % 2].members[number])
            assert not np.array_equal(member, parts[1 - number % 2].members[number])
        for name in ("probability", "anchor_probability"):
            mean = np.mean([getattr(part, name) for part in parts], axis=0)
            assert np.allclose(getattr(result, name), mean, atol=1e-5), name


class Constant(DiffusionModel):
    """Says the same of each pixel, whatever the image and the noise."""

    def __init__(self, probability: float) -> None:
        super().__init__(stride=1)
        self.logit = math.log(probability / (1 - probability))

    def condition(self, image: Tensor) -> Condition:
        return Condition(torch.full_like(image, self.logit))

    def denoise(self, x_t: Tensor, time: Tensor, condition: Condition) -> Tensor:
        return condition.logits


def test_each_run_counts_alike_however_many_members_it_draws() -> None:
    """Of five members three are the first run's: the mean of members would be 0.43."""
    config = small_config(*DATA, "data.resize=none")
    segmenter = Segmenter(Constant(0.25), config, device="cpu", others=[Trained(Constant(0.7), config)])
    result = segmenter(np.arange(64, dtype=np.uint8).reshape(8, 8), members=5)
    assert np.allclose(result.probability, (0.25 + 0.7) / 2, atol=1e-6)
    assert [int(member.mean()) for member in result.members] == [0, 1, 0, 1, 0]


def test_auto_of_several_runs_is_as_many_members_asked_for(seeds: list[Path], data: Path) -> None:
    segmenter, image = Segmenter.from_runs(seeds, device="cpu", precision="fp32"), data / "images" / "case00.png"
    found = segmenter(image, members="auto", steps=2, fusion="majority")
    same = segmenter(image, members=len(found.members), steps=2, fusion="majority")
    assert len(found.members) >= 15
    for name in ("mask", "members", "anchor"):  # batches of other sizes round otherwise: a pixel at ½ may differ
        assert np.mean(getattr(found, name) != getattr(same, name)) < 1e-3, name
    assert np.allclose(found.probability, same.probability, atol=1e-5)


def test_members_with_opposite_noise_are_drawn_by_one_run() -> None:
    request = Request.of(*[drawing(32, "sampling.antithetic=true")] * 2, members=7)
    own = [request.turn(number).own(range(7), request.by_run[number]) for number in range(2)]
    assert own == [[0, 1, 4, 5], [2, 3, 6]]
    with pytest.raises(ConfigError, match="members is 3; 2 runs share out 4 at least"):
        Request.of(*[drawing(32, "sampling.antithetic=true")] * 2, members=3)


def test_candidates_of_several_runs_decide_and_some_of_them_are_members(seeds: list[Path], data: Path) -> None:
    segmenter, image = Segmenter.from_runs(seeds, device="cpu", precision="fp32"), data / "images" / "case00.png"
    drawn = segmenter(image, members=6, steps=2, fusion="majority")
    kept = segmenter(image, members=2, candidates=6, steps=2, fusion="majority")
    assert kept.choice is not None
    assert kept.choice.sizes[:, 0].tolist() == [int(member.sum()) for member in drawn.members]
    assert np.array_equal(kept.members, drawn.members[list(kept.choice.numbers)])
    assert np.array_equal(kept.mask, drawn.mask)


def test_a_mean_of_each_run_that_draws_is_a_member_without_sizes(
    seeds: list[Path], folds: list[Path], data: Path
) -> None:
    image, runs = data / "images" / "case00.png", [*seeds, folds[0]]
    alone = [Segmenter.from_pretrained(run, device="cpu", precision="fp32")(image, mode="mean") for run in runs]
    together = Segmenter.from_runs(runs, device="cpu", precision="fp32")(image, mode="mean")
    assert np.allclose(together.probability, np.mean([of.probability for of in alone], axis=0), atol=1e-6)
    assert np.array_equal(together.members, [of.mask for of in alone])
    assert together.sizes() == {}


def test_volumes_are_segmented_slice_by_slice_by_all_runs(tmp_path: Path) -> None:
    volume = ("data.plane=axial", "data.modalities=[mr]")
    runs = [write_run(tmp_path / f"run{n}", plain(32 + 16 * n, *volume), seed=n) for n in range(2)]
    path = save(tmp_path / "scan.nii.gz", np.random.default_rng(0).integers(0, 200, (12, 10, 3), dtype=np.int16))
    alone = [Segmenter.from_pretrained(run, device="cpu", precision="fp32")(path) for run in runs]
    together = Segmenter.from_runs(runs, device="cpu", precision="fp32")(path)
    assert together.mask.shape == (12, 10, 3)
    assert np.array_equal(together.members, [of.mask for of in alone])
    halves = np.mean([of.probability for of in alone], axis=0, dtype=np.float32)
    assert np.abs(together.probability.astype(np.float32) - halves).max() < 1e-3  # kept in 16 bits
    assert together.sizes()["lesion"].unit == "mL"


def test_results_are_scored_as_those_of_any_ensemble(folds: list[Path], data: Path, tmp_path: Path) -> None:
    segmented(folds, data, tmp_path / "both", "--split", "test")
    raters = {"rater1": data / "masks", "rater2": tmp_path / "both/members/00/masks"}
    for rater, masks in raters.items():
        shutil.copytree(masks, tmp_path / "raters" / rater)
    result = evaluate(tmp_path / "both", tmp_path / "raters", split="test")
    assert result.setup.members == 2
    words = "mix the anchor (100%, 100%) and what members expect, fitted on 7 validation cases, on average over 2 runs."
    assert result.setup.probability_is.endswith(words)
    ged = []
    for name in ("case00", "case01"):
        a, b = (read_mask(tmp_path / f"both/members/0{n}/masks/{name}.png") > 0 for n in range(2))
        truth = read_mask(data / "masks" / f"{name}.png") > 0
        across = [distance(a, truth), distance(b, truth), 0.0, distance(b, a)]  # the first member is a rater too
        ged.append(2 * np.mean(across) - distance(a, b) / 2 - distance(a, truth) / 2)
    assert result.mean("ged").mean == pytest.approx(np.mean(ged))
    prices, found = [budget(plain(size)) for size in (32, 48)], costs([tmp_path / "both"])
    assert found["parameters"].mean == sum(price.parameters for price in prices)
    assert found["gmac_all"].mean == pytest.approx(2 * sum(price.condition_gmac for price in prices))
    assert (found["members"].mean, found["calls"].mean) == (2, 4)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """1 − IoU."""
    return float(1 - (a & b).sum() / (a | b).sum()) if (a | b).any() else 0.0


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ("data.classes=[cyst]", r"classes differ: lesion in .*fold0; cyst in .*other\. Give runs that are alike in it"),
        ("data.channels=3", r"image channels differ: 1 in .*fold0; 3 in .*other"),
        ("data.modalities=[mr]", r"modalities differ: natural in .*fold0; mr in .*other"),
    ],
)
def test_runs_of_other_masks_or_images_are_refused(folds: list[Path], tmp_path: Path, changed: str, told: str) -> None:
    other = write_run(tmp_path / "other", small_network("nnunet", *DATA, *PLAIN, changed), seed=5)
    with pytest.raises(ConfigError, match=told):
        Segmenter.from_runs([folds[0], other], device="cpu")


def test_the_same_weights_twice_are_refused(folds: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"fold0 is given 2 times\. Give each run once"):
        Segmenter.from_runs([folds[0], folds[0]], device="cpu")
    copy = shutil.copytree(folds[0], tmp_path / "copy")
    with pytest.raises(ConfigError, match=r"fold0 and .*copy have the same weights"):
        Segmenter.from_runs([*folds, copy], device="cpu")
    with pytest.raises(ConfigError, match="Give one at least"):
        Segmenter.from_runs([])


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"members": 3}, "members is 3; each of these 2 runs is one member, whatever the noise. Leave it out"),
        ({"members": "auto"}, "members is auto; each of these 2 runs is one member"),
        ({"candidates": 9}, "candidates is 9; each of these 2 runs is one member"),
        ({"steps": 2}, "mode mean with steps"),
    ],
)
def test_what_runs_without_noise_can_not_do_is_refused(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Request.of(plain(), plain(), **asked)


def test_ensembles_in_which_a_run_has_no_turn_are_refused() -> None:
    three = [drawing()] * 3
    with pytest.raises(ConfigError, match="members is 2; 3 runs share out 3 at least"):
        Request.of(*three, members=2)
    with pytest.raises(ConfigError, match="members auto draws 5 at a time; 6 runs share out 6 at least"):
        Request.of(*three, *three, members="auto")
    with pytest.raises(ConfigError, match="medsegdiff-v2 members, nnunet one probability. Take runs of one kind, or"):
        Request.of(drawing(), plain())


def test_runs_whose_splits_differ_are_not_tested_together(folds: list[Path], data: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folds[1], tmp_path / "other")
    (other / "split.csv").write_text("id,split\ncase00,train\ncase01,test\n")
    with pytest.raises(ConfigError, match=r"split 'test' is another one in .*other.*: 1 of 2 cases are in both"):
        common_split([folds[0], other], "test")
    named = f"{folds[0]},{other}"
    assert call("segment", data, "-m", named, "--split", "test", "-o", tmp_path / "out", "-q") == 2
    assert not (tmp_path / "out").exists()


def test_folders_with_commas_and_repeated_options_are_read(folds: list[Path], data: Path, tmp_path: Path) -> None:
    odd = shutil.copytree(folds[0], tmp_path / "a,b")
    out, images = tmp_path / "out", data / "images" / "case00.png"
    assert call("segment", images, "-m", odd, "-m", folds[1], "-o", out, "-d", "cpu", "-q") == 0
    told = json.loads((out / "segment.json").read_text())
    assert [run["folder"] for run in told["runs"]] == [str(odd), str(folds[1])]
