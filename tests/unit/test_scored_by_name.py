"""What `segment` wrote is held against references structure by structure, by name, in whatever form it was written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from medsegdiff.config.data import DataConfig
from medsegdiff.errors import DataError
from medsegdiff.evaluation import evaluate
from medsegdiff.io.names import spelt_alike
from medsegdiff.labels import Labels
from medsegdiff.server.results import Results
from tests.makers import write_png
from tests.scored import numbers
from tests.shown import EYE, LESION, PARTS, segmentation, shown

SIZE = (24, 30)
ODD = Labels("exclusive", ("background", "disc", "cup"), values=((0,), (7,), (3,)))


def written(root: Path, *, parts: tuple[str, ...] = PARTS, labels: Labels = EYE) -> Path:
    """Results of a model of disc and cup."""
    made = [segmentation(name, SIZE, labels) for name in "ab"]
    out, _ = shown(root, *made, parts=parts)
    if labels.values:
        told = json.loads((out / "segment.json").read_text())
        (out / "segment.json").write_text(json.dumps({**told, "values": labels.values}))
    return out


def nnunet(root: Path, *, drawn: tuple[str, ...] = ("disc", "cup"), **values: int) -> Path:
    """A data set that tells of its classes, with the same masks of what was ``drawn`` by other numbers."""
    data = root / "Dataset007_Eye"
    for name in "ab":
        mask = segmentation(name, SIZE, EYE).mask
        numbered = np.array([0, *(values.get(of, 0) for of in drawn)], np.uint8)
        write_png(data / "labelsTr" / f"{name}.png", mask if values.keys().isdisjoint(drawn) else numbered[mask])
        write_png(data / "imagesTr" / f"{name}_0000.png", mask)
    told = {"channel_names": {"0": "fundus"}, "labels": {"background": 0, **values}, "file_ending": ".png"}
    (data / "dataset.json").write_text(json.dumps({**told, "numTraining": 2}))
    return data


@pytest.mark.parametrize("labels", [EYE, ODD])
@pytest.mark.parametrize("parts", [PARTS, ("masks",), ("labels",)])
def test_a_data_set_that_numbers_its_classes_otherwise_is_scored_by_their_names(
    tmp_path: Path, parts: tuple[str, ...], labels: Labels
) -> None:
    out, data = written(tmp_path, parts=parts, labels=labels), nnunet(tmp_path, cup=1, disc=2)
    assert {"dice": 1, "dice/cup": 1, "dice/disc": 1}.items() <= numbers(evaluate(out, data)).items()
    bare = DataConfig(classes=("background", "Cup", "DISC"))
    assert numbers(evaluate(out, data / "labelsTr", data=bare))["dice/Cup"] == 1
    if parts == PARTS:
        dices = [numbers(evaluate(out / part, data))["dice/cup"] for part in ("anchor", "members", "probability")]
        assert min(dices) > 0.4


def test_structures_that_the_model_does_not_know_are_an_error_not_a_score(tmp_path: Path) -> None:
    out, data = written(tmp_path), nnunet(tmp_path, liver=1, spleen=2)
    with pytest.raises(DataError, match=r"hold the structures liver, spleen; the model .* knows disc, cup\."):
        evaluate(out, data)
    assert numbers(evaluate(out, data / "labelsTr"))["dice/cup"] == 1  # as the error says


@pytest.mark.parametrize("parts", [("masks",), ("labels",)])
@pytest.mark.parametrize(
    ("known", "drawn"), [(("CD8+", "CD8-"), ("CD8 +", "cd8 -")), (("Grade 1.1", "Grade 11"), ("grade 1.1", "grade-11"))]
)
def test_names_that_differ_by_a_sign_or_a_point_are_of_different_structures(
    tmp_path: Path, parts: tuple[str, ...], known: tuple[str, ...], drawn: tuple[str, ...]
) -> None:
    out = written(tmp_path, labels=Labels("exclusive", ("background", *known)), parts=parts)
    first, second = drawn
    assert numbers(evaluate(out, nnunet(tmp_path, drawn=drawn, **{second: 1, first: 2})))["dice"] == 1
    alone = nnunet(tmp_path / "alone", drawn=drawn, **{first: 1})
    assert numbers(evaluate(out, alone))["dice"] == 1


def test_names_that_are_spelt_alike_on_one_side_are_not_told_apart_by_chance() -> None:
    known, twice = ("lv_cavity", "myo"), ("LV cavity", "LV-cavity")
    assert spelt_alike(twice, known) == {}
    assert spelt_alike(("LV cavity", "Myo"), known) == {"LV cavity": "lv_cavity", "Myo": "myo"}
    assert spelt_alike(("lv_cavity", "LV cavity"), known) == {"lv_cavity": "lv_cavity"}
    assert spelt_alike(("बाँया",), ("बायाँ",)) == {}  # vowel signs are no punctuation
    assert spelt_alike(("T1-",), ("T1*", "T1")) == {"T1-": "T1*"}  # as its folder is called


@pytest.mark.parametrize("unnamed", ["class_{}", "Class {}", "label{}", "{}"])
def test_values_tell_where_one_side_has_no_names(tmp_path: Path, unnamed: str) -> None:
    classes = ("background", unnamed.format(1), unnamed.format(2))
    out = written(tmp_path, labels=Labels("exclusive", classes), parts=("labels",))
    assert numbers(evaluate(out, nnunet(tmp_path, disc=1, cup=2)))["dice/cup"] == 1


def test_one_structure_of_a_model_of_several_is_found_by_its_name(tmp_path: Path) -> None:
    out = written(tmp_path)
    assert numbers(evaluate(out, nnunet(tmp_path, cup=1)))["dice"] == 1
    assert numbers(evaluate(out / "masks" / "cup", nnunet(tmp_path / "again", cup=1)))["dice"] == 1


@pytest.mark.parametrize("parts", [("masks",), ("labels",)])
@pytest.mark.parametrize("labels", [LESION, EYE, Labels("binary", ("lesion",), values=((2,),))])
def test_whatever_was_written_is_scored_against_what_the_viewer_saved(
    tmp_path: Path, labels: Labels, parts: tuple[str, ...]
) -> None:
    results = Results(written(tmp_path, parts=parts, labels=labels))
    for name in "ab":
        results.correct(name, segmentation(name, SIZE, labels).mask.tobytes())
    assert numbers(evaluate(results.root, results.root / "references"))["dice"] == 1
