"""What images look like: grey values, and features of the Condition Model, through mirrors, of runs and volumes."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from medsegdiff import Segmenter
from medsegdiff.inference.judging import judge, looks_of
from medsegdiff.inference.looks import looks_of_images
from medsegdiff.inference.quality import QualityModel, Range, StructureQuality
from medsegdiff.inference.runs import Trained
from medsegdiff.metrics.likeness import features_of, fit_likeness
from medsegdiff.metrics.tails import Tail
from medsegdiff.models.base import build_model
from medsegdiff.types import Case, Geometry
from tests.makers import randomised, small_config, small_network

DATA = ("data.channels=1", "data.task=binary", "data.classes=[lesion]", "sampling.members=2", "sampling.steps=1")
SEEN = ("anchor", "medsegdiff-v2")


def made(name: str, *more: str) -> Segmenter:
    config = small_network(name, *DATA, *more) if name != "medsegdiff-v2" else small_config(*DATA, *more)
    return Segmenter(randomised(build_model(config)), config, device="cpu", precision="fp32")


def picture(seed: int = 0, side: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).random((1, side, side)).astype(np.float32)


def seen_of(image: np.ndarray | Case, segmenter: Segmenter) -> np.ndarray:
    """What the networks see of an image that is only looked at."""
    return next(iter(looks_of_images([image], segmenter)))["network"]


@pytest.mark.parametrize("name", SEEN)
def test_a_network_shows_mean_and_deviation_of_all_levels_and_nothing_in_training(name: str) -> None:
    model = made(name).model
    image = torch.from_numpy(picture())[None]
    with torch.inference_mode():
        levels = model.condition_model.encoder(image)
        shown = model.condition(image).pooled[0]
    by_hand = [of for level in levels for of in (level[0].mean((1, 2)), level[0].var((1, 2), correction=0).sqrt())]
    assert torch.allclose(shown, torch.cat(by_hand), atol=1e-5)
    assert model.train().condition(image).pooled is None


@pytest.mark.parametrize("name", SEEN)
def test_images_are_seen_alike_whether_they_are_segmented_or_only_looked_at(name: str) -> None:
    segmenter = made(name, "sampling.views=2", "data.augment=true")
    (alone,) = looks_of_images([picture()], segmenter)
    assert set(alone) == {"grey", "network"}
    for kind, seen in looks_of(segmenter(picture()), "auto").items():
        assert seen == pytest.approx(alone[kind], rel=1e-5, abs=1e-5)
    (other,) = looks_of_images([1 - picture()], segmenter)
    assert np.abs(other["network"] - alone["network"]).max() > 1e-3


def test_runs_that_segment_together_show_what_each_sees_one_after_the_other() -> None:
    first, second = made("medsegdiff-v2"), made("medsegdiff-v2", "data.image_size=48")
    others = [Trained(randomised(second.model, 1), second.config, sha256=("x",))]
    both = Segmenter(first.model, first.config, device="cpu", precision="fp32", others=others, sha256=["y"])
    joined = np.concatenate([seen_of(picture(), of) for of in (first, second)])
    assert seen_of(picture(), both) == pytest.approx(joined, rel=1e-5, abs=1e-5)
    assert both(picture()).pooled == pytest.approx(joined, rel=1e-5, abs=1e-5)


def test_of_a_volume_the_mean_over_slices_is_seen() -> None:
    segmenter = made("medsegdiff-v2")
    geometry = Geometry((12, 10, 5), (1.0, 1.0, 3.0), np.diag([1.0, 1.0, 3.0, 1.0]))
    volume = Case("v", np.random.default_rng(0).random((1, *geometry.shape)).astype(np.float32), None, geometry)
    result = segmenter(volume)
    assert result.pooled == pytest.approx(seen_of(volume, segmenter), rel=1e-4, abs=1e-4)
    darker = segmenter(replace(volume, image=volume.image * np.linspace(0, 1, 5, dtype=np.float32)))
    assert np.abs(darker.pooled - result.pooled).max() > 1e-3


def stored(voxels: np.ndarray, codes: str) -> Case:
    """A volume whose axes are stored in some order."""
    plain = nib.Nifti1Image(voxels, np.diag([1.0, 1.5, 4.0, 1.0]))
    turned = plain.as_reoriented(ornt_transform(io_orientation(plain.affine), axcodes2ornt(codes)))
    geometry = Geometry(turned.shape, tuple(map(float, turned.header.get_zooms())), turned.affine)
    return Case("v", np.asarray(turned.dataobj)[None], None, geometry)


@pytest.mark.parametrize("codes", ["SRA", "PIR"])
def test_a_volume_is_judged_alike_however_it_is_stored(codes: str) -> None:
    segmenter = made("nnunet")
    brighter = np.linspace(1, 2, 8, dtype=np.float32)[:, None]  # to the front
    first, *others = np.random.default_rng(0).random((8, 10, 8, 6)).astype(np.float32) * brighter
    plain, turned = looks_of_images([stored(first, of) for of in ("RAS", codes)], segmenter)
    assert turned["grey"] == pytest.approx(plain["grey"], rel=1e-4)
    looks = list(looks_of_images([stored(of, "RAS") for of in others], segmenter))
    usual = Range(low=0, high=1)
    lesion = StructureQuality(score="confidence", usual=usual, size=usual, border=True, doubts=Tail.of([0.0, 1.0]))
    model = QualityModel(
        cases=7,
        patients=7,
        good=0.8,
        risk=0.05,
        confidence=0.9,
        structures={"lesion": lesion},
        spacing=tuple(Range(low=of, high=of) for of in (1.0, 1.5, 4.0)),
        shape=tuple(Range(low=of, high=of) for of in (10, 8, 6)),
        likeness={"grey": fit_likeness([of["grey"] for of in looks])},
        volumes=True,
        sampling=segmenter.request().sampling,
    )
    usual_one, higher = (stored(of, codes) for of in (first, first.repeat(3, axis=2)))
    assert not [told for told in judged(usual_one, segmenter, model) if "axis" in told or " from " in told]
    assert "the image has 18 pixels from foot to head; calibration cases had 6" in judged(higher, segmenter, model)


def judged(case: Case, segmenter: Segmenter, model: QualityModel) -> tuple[str, ...]:
    """What is unusual."""
    return judge(segmenter(case), model).quality["lesion"].reasons


def test_of_networks_that_show_nothing_there_are_the_grey_values() -> None:
    segmenter = made("nnunet")
    assert segmenter(picture()).pooled is None
    for looks in (next(iter(looks_of_images([picture()], segmenter))), looks_of(segmenter(picture()), "auto")):
        assert set(looks) == {"grey"}
        assert np.array_equal(looks["grey"], features_of(picture()))
