"""How good a mask seems without a reference, by hand and brute force, and what is said of it."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from pydicom import Dataset

from medsegdiff.config.cleaning import Cleaning
from medsegdiff.config.diffusion import SamplingConfig
from medsegdiff.inference.certainty import Certainty
from medsegdiff.inference.judging import judge, quality_by
from medsegdiff.inference.quality import QualityModel, Range, StructureQuality, file_of
from medsegdiff.inference.review import Quality, Review, flagged, order_of, rank_of, worst_of
from medsegdiff.inference.scores import SCORES, scores_of
from medsegdiff.inference.segmentation import Segmentation
from medsegdiff.inference.uncertainty import uncertainty_of
from medsegdiff.io.dicom import DicomHeader
from medsegdiff.labels import Labels
from medsegdiff.metrics.acceptance import Acceptance
from medsegdiff.metrics.likeness import Likeness, features_of, fit_likeness
from medsegdiff.metrics.predicted_dice import DiceMap
from medsegdiff.metrics.tails import Tail
from medsegdiff.types import Geometry

TASKS = {"binary": ("lesion",), "exclusive": ("background", "a", "b"), "regions": ("disc", "cup")}
SIDE = 12


def result(task: str = "binary", *, members: int = 4, seed: int = 0) -> Segmentation:
    rng = np.random.default_rng(seed)
    labels = Labels(task, TASKS[task])
    k = len(labels.classes)
    ramp = np.linspace(0, 0.9, SIDE)[:, None]  # a part of an image, not noise; members differ where it ends
    p = np.clip(ramp + 0.2 * rng.random((members, k, 1, SIDE)), 0, 1).astype(np.float32)
    p = np.broadcast_to(p, (members, k, SIDE, SIDE)).copy()
    maps = np.stack([labels.decide(torch.from_numpy(of)) for of in p])
    anchor = np.clip(ramp + 0.3 * rng.random((k, SIDE, SIDE)), 0, 1).astype(np.float32)
    return Segmentation(
        name="x",
        mask=labels.decide(torch.from_numpy(p.mean(axis=0))),
        probability=p.mean(axis=0),
        uncertainty=uncertainty_of(torch.from_numpy(p), exclusive=task == "exclusive"),
        members=maps,
        anchor=labels.decide(torch.from_numpy(anchor)),
        anchor_probability=anchor,
        anchor_certainty=Certainty.of(torch.from_numpy(anchor), labels),
        sensitivity=rng.random((members, k)),
        specificity=rng.random((members, k)),
        image=rng.random((1, SIDE, SIDE)).astype(np.float32),
        geometry=Geometry((SIDE, SIDE), (1.0, 1.0)),
        labels=labels,
    )


def dice(a: np.ndarray, b: np.ndarray) -> float:
    total = a.sum(dtype=int) + b.sum(dtype=int)
    return 1.0 if not total else 2 * float((a & b).sum()) / total


@pytest.mark.parametrize("task", TASKS)
def test_scores_by_brute_force(task: str) -> None:
    found = result(task)
    for index, (name, scores) in enumerate(scores_of(found).items()):
        own = [found.labels.mask(member, index) for member in found.members]
        fused, anchor = (found.labels.mask(of, index) for of in (found.mask, found.anchor))
        sizes = np.array([mask.sum(dtype=int) for mask in own])
        assert set(scores) == set(SCORES)
        assert scores["agreement"] == pytest.approx(np.mean([dice(a, b) for a, b in combinations(own, 2)]))
        assert scores["fused_agreement"] == pytest.approx(np.mean([dice(fused, mask) for mask in own]))
        assert scores["anchor_dice"] == pytest.approx(dice(fused, anchor))
        assert scores["steadiness"] == pytest.approx(1 / (1 + sizes.std() / sizes.mean()))
        channel = found.labels.classes.index(name)
        assert scores["sensitivity"] == pytest.approx(found.sensitivity[:, channel].min())
        for p, key in ((found.probability, "confidence"), (found.anchor_probability, "anchor_confidence")):
            p, drawn = np.where(p[channel] < 0.01, 0, p[channel]), p[channel] >= 0.5
            assert scores[key] == pytest.approx(2 * p[drawn].sum() / (p.sum() + drawn.sum()), rel=1e-5)
        assert scores["order"] == pytest.approx(1 - found.uncertainty.entropy.mean(), rel=1e-5)


def test_a_single_mask_has_no_scores_of_members() -> None:
    found = scores_of(result(members=1))["lesion"]
    assert not {"agreement", "fused_agreement", "steadiness", "sensitivity"} & set(found)


def learned(**changes: object) -> QualityModel:
    known = {
        "score": "agreement",
        "dice": DiceMap((0.0, 1.0), (0.2, 0.9)),
        "margin": 0.5,
        "acceptance": None,
        "usual": Range(low=0.0, high=1.0),
        "size": Range(low=0.0, high=1.0),
        "border": True,
        "doubts": Tail.of([0.0, 0.1, 0.2]),
    }
    structure = StructureQuality.model_validate(known | changes)
    return QualityModel(
        cases=40,
        patients=40,
        good=0.1,
        risk=0.05,
        confidence=0.9,
        structures={"lesion": structure},
        sampling=SamplingConfig(),
    )


def reasons(model: QualityModel, found: Segmentation) -> tuple[str, ...]:
    return judge(found, model).quality["lesion"].reasons


def test_a_usual_mask_is_accepted_with_its_dice_and_bound() -> None:
    found = result()
    quality = judge(found, learned()).quality["lesion"]
    predicted = 0.2 + 0.7 * scores_of(found)["lesion"]["agreement"]
    assert quality.predicted_dice == pytest.approx(predicted)
    assert quality.dice_at_least == pytest.approx(predicted - 0.5 * (1.05 - predicted))
    assert (quality.review, quality.reasons) == (False, ())


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"size": Range(low=0.0, high=0.01)}, "it is larger than in any calibration case"),
        ({"size": Range(low=0.9, high=1.0)}, "it is smaller than in any calibration case"),
        ({"border": False}, "it reaches the border of the image, and may be cut off"),
        ({"usual": Range(low=0.999, high=1.0)}, "members disagree .*95 % of the calibration cases have 0.999 or more"),
        ({"acceptance": Acceptance(0.999, 60, 0, 0.04, 0.5)}, r"members disagree .*pass unseen from 0\.999 on"),
    ],
)
def test_what_is_unusual_is_said_in_words_and_reviewed(changes: dict[str, object], why: str) -> None:
    quality = judge(result(), learned(**changes), incomplete=["lesion"]).quality["lesion"]
    assert quality.review
    assert len(quality.reasons) == 1
    assert re.search(why, quality.reasons[0])


def test_a_low_prediction_is_reviewed_where_nothing_could_be_promised() -> None:
    model = learned().model_copy(update={"good": 0.95})
    assert "below 0.95" in reasons(model, result())[0]


def test_an_image_of_other_spacing_is_told() -> None:
    model = learned().model_copy(update={"spacing": (Range(low=3.0, high=4.0), Range(low=1.0, high=1.0))})
    (told,) = reasons(model, result())
    assert told == "spacing is 1 mm along axis 0; calibration cases had 3 to 4"


@pytest.mark.parametrize(
    ("usual", "why"),
    [
        ({"shape": (Range(low=30, high=40), Range(low=12, high=12))}, "12 pixels along axis 0; .* had 30 to 40"),
        ({"values": Range(low=2.0, high=3.0)}, r"its values go from 0\.\S+ to 0\.\S+; calibration cases had 2 to 3"),
        ({"modalities": ("ct",)}, "say that it is MR, but the model was trained on ct"),
    ],
)
def test_an_image_of_other_size_values_or_modality_is_told(usual: dict[str, object], why: str) -> None:
    (told,) = reasons(learned().model_copy(update=usual), made_by_mr())
    assert re.search(why, told)


def made_by_mr() -> Segmentation:
    dataset = Dataset()
    dataset.Modality = "MR"
    return replace(result(), geometry=Geometry((SIDE, SIDE), (1.0, 1.0), header=DicomHeader((dataset,))))


def test_an_image_of_one_grey_value_is_told() -> None:
    (told,) = reasons(learned(), replace(result(), image=np.full((1, SIDE, SIDE), 0.5, np.float32)))
    assert told == "the image is of one grey value"


def test_sizes_and_values_that_are_nearly_usual_are_not_told() -> None:
    usual = {"shape": (Range(low=16, high=16),) * 2, "values": Range(low=0.1, high=0.9)}
    assert not reasons(learned().model_copy(update=usual), result())


def test_a_result_tells_its_quality_if_it_can() -> None:
    assert result().quality == {}
    found = replace(result(), judging=partial(quality_by, learned()))
    assert found.quality == judge(found, learned()).quality


def test_a_structure_that_was_not_learned_has_scores_and_no_quality() -> None:
    found = judge(result("regions"), learned())
    assert set(found.scores) == {"disc", "cup"}
    assert found.quality == {}


def test_volumes_are_not_judged_by_what_pictures_taught() -> None:
    found = judge(result(), learned().model_copy(update={"volumes": True}))
    assert found.scores
    assert found.quality == {}


@pytest.mark.parametrize("volumes", [True, False])
def test_what_volumes_looked_like_as_they_were_stored_is_left_out(
    volumes: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = {"shape": (Range(low=1, high=2),), "volumes": volumes, "version": 4}
    read = QualityModel.read(learned().model_copy(update=known).save(tmp_path))
    assert read is not None
    assert read.shape == (() if volumes else known["shape"])
    assert ("Run 'medsegdiff calibrate' again" in caplog.text) == volumes


def reviewed(judged: list[dict[str, Quality]], review: Review) -> list[dict[str, Quality]]:
    chosen = worst_of([rank_of(image) for image in judged], review)
    return [flagged(image, review, among_worst=place in chosen) for place, image in enumerate(judged)]


def test_a_share_of_whole_images_is_not_rounded_up() -> None:
    judged = [{"a": of(number / 200)} for number in range(100)]
    marked = reviewed(judged, Review(share=0.07))  # 0.07 · 100 is a little more than 7
    assert sum(image["a"].review for image in marked) == 7


def of(trust: float, *, predicted: float | None = None, review: bool = False) -> Quality:
    return Quality(score=0.5, predicted_dice=trust if predicted is None else predicted, trust=trust, review=review)


def test_the_worst_share_is_marked_and_what_is_below_is() -> None:
    judged = [{"a": of(0.9)}, {"a": of(0.3)}, {"a": of(0.7)}, {"a": of(0.95)}]
    by_share = reviewed(judged, Review(share=0.5))
    assert [image["a"].review for image in by_share] == [False, True, True, False]
    assert "among the worst 50 %" in by_share[1]["a"].reasons[0]
    below = reviewed(judged, Review(below=0.92))
    assert [image["a"].review for image in below] == [True, True, True, False]


def test_an_image_is_as_bad_as_its_worst_structure() -> None:
    judged = [{"a": of(0.9), "b": of(0.2)}, {"a": of(0.5), "b": of(0.5)}]
    assert [any(q.review for q in image.values()) for image in reviewed(judged, Review(share=0.5))] == [True, False]


def test_what_must_be_seen_comes_first_then_what_is_worst() -> None:
    judged = {"x": of(0.2), "y": of(0.9, review=True), "z": of(0.1)}
    assert sorted(judged, key=lambda name: order_of(judged[name])) == ["y", "z", "x"]


def test_a_quality_model_is_written_and_read(tmp_path: Path) -> None:
    seen = np.random.default_rng(0).random((9, 40)).astype(np.float32)
    likeness = fit_likeness(list(seen), list(seen[::-1] + 0.5))
    model = learned(acceptance=Acceptance(0.9, 60, 1, 0.05, 0.8)).model_copy(update={"likeness": {"grey": likeness}})
    read = QualityModel.read(model.save(tmp_path))
    assert read.model_copy(update={"likeness": {}}) == model.model_copy(update={"likeness": {}})
    assert read.likeness["grey"].seen == likeness.seen
    for of in (seen[0], seen[1] + 2):
        assert read.likeness["grey"].distance(of) == pytest.approx(likeness.distance(of), rel=1e-5)
    assert QualityModel.read(tmp_path / "elsewhere.json") is None


def test_what_was_learned_fits_masks_that_are_made_alike() -> None:
    model = learned().model_copy(update={"cleaning": {"lesion": Cleaning(keep="largest")}})
    alike = {"lesion": Cleaning(keep="largest")}
    assert model.fits(SamplingConfig(batch_size=3), alike)
    assert not model.fits(SamplingConfig(members=3), alike)
    assert not model.fits(SamplingConfig(), {})
    assert not learned().fits(SamplingConfig(), alike)


def test_runs_that_segment_together_have_a_file_of_their_own() -> None:
    names = {file_of(weights) for weights in (["a"], ["b"], ["a", "b"], ["b", "a"], ["a", "c"])}
    assert len(names) == 4  # alone, whatever the weights; in this order; in that order; others
    assert file_of(["a"]) == "quality.json"


def trusted(score: float, seen: float) -> float:
    """Judge a result whose networks saw such numbers, by calibration cases with doubts of .0 … .9, looks near 0."""
    found = replace(result(), pooled=np.full(3, seen))
    own = scores_of(found)["lesion"]["agreement"]
    doubts = Tail.of(np.linspace(0, 0.9, 10) + (1 - own) - (1 - score))  # as if the score were that
    near = np.random.default_rng(0).normal(size=(60, 3))
    model = learned(doubts=doubts).model_copy(update={"likeness": {"network": fit_likeness(list(near))}})
    quality = judge(found, model).quality["lesion"]
    assert ("unlike those before" in str(quality.reasons)) == (seen > 4)
    return quality.trust


def test_an_image_is_strange_if_its_grey_values_are_or_what_the_networks_see() -> None:
    found = replace(result(), pooled=np.zeros(3))
    near, grey = np.random.default_rng(0).normal(size=(60, 3)), features_of(found.image)
    varied = grey + np.random.default_rng(1).normal(size=(60, len(grey)))
    usual = {"grey": fit_likeness(list(varied)), "network": fit_likeness(list(near))}
    strange = {"grey": fit_likeness(list(varied + 50)), "network": fit_likeness(list(near + 50))}

    def told(likeness: dict[str, Likeness]) -> Quality:
        return judge(found, learned().model_copy(update={"likeness": likeness})).quality["lesion"]

    both, one = told(usual), told(usual | {"grey": strange["grey"]})
    assert not any("unlike" in reason for reason in both.reasons)
    assert [reason for reason in one.reasons if "unlike those before, by grey values (" in reason]
    other = told(usual | {"network": strange["network"]})
    assert [reason for reason in other.reasons if "by what the networks see of it (" in reason]
    assert max(one.trust, other.trust) < both.trust
    blind = told({"elsewhere": usual["grey"]})  # it shows nothing of the kind that was learned
    assert [reason for reason in blind.reasons if "unlike those before" in reason]


def test_masks_are_trusted_less_the_lower_their_score_and_the_stranger_their_image() -> None:
    usual = trusted(0.95, 0.5)
    assert usual > 0.7
    low, strange, both = trusted(0.05, 0.5), trusted(0.95, 6.0), trusted(0.05, 6.0)
    assert both < min(low, strange) < max(low, strange) < usual
    assert trusted(0.95, 60.0) < strange  # beyond all that was seen too


def test_promises_of_earlier_versions_are_left_out_and_the_rest_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = learned(acceptance=Acceptance(0.9, 60, 1, 0.05, 0.8))
    assert QualityModel.read(model.save(tmp_path)) == model
    file = model.model_copy(update={"version": 3}).save(tmp_path)
    found = QualityModel.read(file)
    assert found.structures["lesion"] == learned().structures["lesion"]
    assert "Run 'medsegdiff calibrate' again" in caplog.text
