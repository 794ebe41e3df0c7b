"""From a run to a worklist: calibrate, segment with quality, evaluate what was predicted."""

from __future__ import annotations

import csv
import json
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from medsegdiff.config.cleaning import Cleaning
from medsegdiff.inference.quality import FILE, QualityModel
from medsegdiff.training.cleaning import Gain, Learned
from tests.exported import TINY, config_of, write_run
from tests.makers import make_folder, write_png
from tests.program import call


@pytest.fixture(scope="module")
def quick(trained: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run that averages its members, and the pictures it was trained on."""
    run = tmp_path_factory.mktemp("quick") / "run"
    shutil.copytree(trained[0], run)
    config = json.loads((run / "config.json").read_text())
    config["config"]["sampling"]["fusion"] = "mean"
    (run / "config.json").write_text(json.dumps(config))
    return run, trained[1]


@pytest.fixture(scope="module")
def calibrated(quick: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run that has seen 32 other pictures."""
    base = tmp_path_factory.mktemp("quality")
    shutil.copytree(quick[0], base / "run")
    more = make_folder(base / "more", count=32)
    assert call("calibrate", base / "run", more, "--split", "all", "--good", "0.3", "--risk", "0.4") == 0
    return base / "run", more


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def test_a_run_learns_what_its_scores_say(calibrated: tuple[Path, Path]) -> None:
    model = QualityModel.read(calibrated[0] / FILE)
    quality = model.structures["foreground"]
    assert (model.cases, model.patients, model.good, model.risk) == (32, 32, 0.3, 0.4)
    known = {name: area for name, area in quality.aurc.items() if name not in ("random", "oracle")}
    assert quality.aurc["oracle"] <= min(known.values())
    assert quality.acceptance is not None or known[quality.score] == min(known.values())
    assert quality.dice is not None
    assert list(quality.dice.dice) == sorted(quality.dice.dice)


def test_segment_writes_a_worklist_the_worst_first(calibrated: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = calibrated
    out = tmp_path / "out"
    assert call("segment", data, "--model", run, "--out", out, "--review-share", "25%") == 0
    found = rows(out / "quality.csv")
    assert len(found) == 32
    marked = [row["flag"] == "review" for row in found]
    assert marked == sorted(marked, reverse=True)
    assert sum("among the worst 25 %" in row["reasons"] for row in found) == 8
    told = json.loads((out / "segment.json").read_text())["images"]
    by_name = {image["name"]: image["quality"]["foreground"] for image in told}
    for row in found:
        assert float(row["predicted_dice"]) == pytest.approx(by_name[row["name"]]["predicted_dice"], abs=1e-4)
        assert float(row["dice_at_least"]) <= float(row["predicted_dice"])
    page = (out / "quality.html").read_text()
    assert "Which masks must a human see?" in page
    assert "data:image/jpeg" in page


@pytest.mark.parametrize("again", [("--resume",), ("--part", "1/1")])
def test_results_that_are_done_may_be_gone_on_with_to_see_more_of_them(
    calibrated: tuple[Path, Path], again: tuple[str, ...], tmp_path: Path
) -> None:
    run, data = calibrated
    asked = ("segment", *sorted((data / "images").iterdir())[:4], "--model", run, "--out", tmp_path / "out")
    assert call(*asked) == 0
    assert call(*asked, *again, "--review-share", "50%") == 0
    found = rows(tmp_path / "out" / "quality.csv")
    assert sum("among the worst 50 %" in row["reasons"] for row in found) == 2
    assert json.loads((tmp_path / "out" / "segment.json").read_text())["review"] == {"share": 0.5}
    assert call(*asked[:2], *asked[5:], *again) == 0  # one picture, and nothing asked of review
    assert rows(tmp_path / "out" / "quality.csv") == found


def test_results_stay_where_a_calibration_of_an_earlier_version_has_fewer_fields(
    calibrated: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, data = tmp_path / "run", calibrated[1]
    shutil.copytree(calibrated[0], run)
    asked = ("segment", next((data / "images").iterdir()), "--model", run, "--out", tmp_path / "out")
    assert call(*asked) == 0
    told = json.loads((run / FILE).read_text())
    (run / FILE).write_text(json.dumps({name: value for name, value in told.items() if value not in ([], {}, False)}))
    assert call(*asked, "--resume") == 0
    assert "Segmented 0 of 1 images" in capsys.readouterr().err


def test_a_part_in_which_nothing_is_left_to_do_does_not_ask_for_calibration(
    calibrated: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, data = calibrated
    pictures = sorted((data / "images").iterdir())[:6]
    asked = ("segment", *pictures, "--model", run, "--out", tmp_path / "out", "--part", "1/2", "--review-share", "50%")
    for _ in range(2):
        assert call(*asked) == 0
    said = capsys.readouterr().err
    assert "Segmented 0 of 6 images" in said
    assert "medsegdiff calibrate" not in said


def test_evaluate_says_whether_the_predicted_dice_was_right(calibrated: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = calibrated
    out = tmp_path / "out"
    assert call("segment", data, "--model", run, "--out", out, "--write", "masks") == 0
    assert call("evaluate", out, data, "--out", tmp_path / "scores") == 0
    scored = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    of = scored["predicted"]["foreground"]
    dice = {
        row["case"]: float(row["value"]) for row in rows(tmp_path / "scores" / "metrics.csv") if row["metric"] == "dice"
    }
    told = {row["name"]: row for row in rows(out / "quality.csv")}
    errors = [abs(float(told[name]["predicted_dice"]) - true) for name, true in dice.items()]
    assert of["mean_error"] == pytest.approx(sum(errors) / len(errors), abs=1e-3)
    held = [true >= float(told[name]["dice_at_least"]) - 1e-4 for name, true in dice.items()]
    assert of["covered"] == pytest.approx(sum(held) / len(held), abs=0.03)
    assert "Was the predicted Dice right?" in (tmp_path / "scores" / "report.html").read_text()


@pytest.mark.parametrize("other", [("--members", "5"), ("--keep", "largest")])
def test_other_masks_are_not_judged(
    calibrated: tuple[Path, Path],
    other: tuple[str, str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, data = calibrated
    picture = next((data / "images").iterdir())
    assert call("segment", picture, "--model", run, "--out", tmp_path / "out", *other, "--review-share", "0.5") == 0
    assert not (tmp_path / "out" / "quality.csv").exists()
    assert "Calibration was of other masks" in caplog.text
    assert f"'medsegdiff calibrate {run} DATA'" in " ".join(capsys.readouterr().err.split())


def test_cleaning_that_was_learned_is_done_unless_something_else_is_asked(
    calibrated: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here it removes all that is drawn."""
    run, picture = tmp_path / "run", next((calibrated[1] / "images").iterdir())
    shutil.copytree(calibrated[0], run)
    learned = {"foreground": Cleaning(remove_below="9999px")}
    QualityModel.read(run / FILE).model_copy(update={"cleaning": learned}).save(run)

    def segmented(*options: str) -> tuple[bool, dict[str, Any], bool]:
        """What is drawn, what is told of cleaning, and whether something is told of quality."""
        out = tmp_path / ("out" + "".join(options))
        assert call("segment", picture, "--model", run, "--out", out, *options) == 0
        told = json.loads((out / "segment.json").read_text())
        (image,) = told["images"]
        return image["foreground"]["foreground"] > 0, told, bool(image["quality"])

    drawn, told, judged = segmented("--no-cleaning")
    assert (drawn, told["cleaning"], judged) == (True, {}, False)
    for options in ((), ("--remove-below", "9999px")):  # asked for it is the same
        drawn, told, judged = segmented(*options)
        assert (drawn, told["cleaning"]["foreground"]["remove_below"], judged) == (False, "9999 px", True)
        assert told["cleaning_learned"] == (not options)
    assert "'--no-cleaning' leaves it" in " ".join(capsys.readouterr().err.split())
    drawn, told, judged = segmented("--keep", "largest")
    assert (drawn, told["cleaning"]["foreground"]["remove_below"], judged) == (True, "", False)
    assert call("segment", picture, "-m", run, "-o", tmp_path / "x", "--no-cleaning", "--keep", "largest") == 2


def test_what_is_learned_is_of_clean_masks(
    quick: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, data = tmp_path / "run", quick[1]
    shutil.copytree(quick[0], run)
    learned = Learned({"foreground": Cleaning(keep="largest")}, {"foreground": Gain(0.1, 0.2, 9, 0, 0.01)})
    monkeypatch.setattr("medsegdiff.training.quality.learn_cleaning", lambda *_, **__: learned)
    assert call("calibrate", run, data, "--split", "all", "--out", tmp_path / "seen") == 0
    model, told = QualityModel.read(run / FILE), json.loads((tmp_path / "seen" / "segment.json").read_text())
    assert model.cleaning == learned.cleaning
    assert told["cleaning"]["foreground"]["keep"] == "largest"
    assert call("calibrate", run, data, "--split", "all", "--out", tmp_path / "seen") == 2
    assert "seen holds results already, which are not replaced" in " ".join(capsys.readouterr().err.split())
    assert call("segment", data, "--model", run, "--out", tmp_path / "out") == 0
    scores = [
        [image["scores"]["foreground"][model.structures["foreground"].score] for image in of["images"]]
        for of in (told, json.loads((tmp_path / "out" / "segment.json").read_text()))
    ]
    assert scores[0] == pytest.approx(scores[1])
    doubts = model.structures["foreground"].doubts.values
    assert sorted(doubts) == pytest.approx(sorted(1 - score for score in scores[1]))


def test_a_single_structure_may_have_another_name_in_the_data(
    quick: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, data = tmp_path / "run", tmp_path / "data"
    shutil.copytree(quick[0], run)
    shutil.copytree(quick[1], data)
    (data / "masks").rename(data / "labels")
    (data / "masks").mkdir()
    (data / "labels").rename(data / "masks" / "tumour")
    learned = Learned({"tumour": Cleaning(keep="largest")}, {"tumour": Gain(0.1, 0.2, 9, 0, 0.01)})
    monkeypatch.setattr("medsegdiff.training.quality.learn_cleaning", lambda *_, **__: learned)
    assert call("calibrate", run, data, "--split", "all") == 0
    model = QualityModel.read(run / FILE)
    assert list(model.structures) == list(model.cleaning) == list(model.stretch) == ["foreground"]


@pytest.mark.parametrize("drawn", [("Left Ventricle", "wall"), ("Left Ventricle", "Wall")])
def test_structures_are_learned_by_their_names_however_these_are_spelt(tmp_path: Path, drawn: tuple[str, str]) -> None:
    config = config_of(*TINY, "data.task=regions", "data.classes=[left_ventricle, wall]", "sampling.fusion=mean")
    unasked = config.model_copy(update={"data": config.data.model_copy(update={"task": None, "classes": None})})
    run, data = write_run(tmp_path / "run", unasked), make_folder(tmp_path / "data", count=6)
    (data / "masks").rename(data / "drawn")
    for name in drawn:
        shutil.copytree(data / "drawn", data / "masks" / name)
    shutil.rmtree(data / "drawn")
    assert call("calibrate", run, data, "--split", "all") == 0
    model = QualityModel.read(run / FILE)
    assert list(model.structures) == list(model.stretch) == ["left_ventricle", "wall"]


def test_runs_that_segment_together_are_calibrated_together(
    calibrated: tuple[Path, Path], quick: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, runs = quick[1], [tmp_path / "a", tmp_path / "b"]
    pictures = sorted((data / "images").iterdir())[:2]
    for run, made in zip(runs, (calibrated[0], quick[0]), strict=True):
        shutil.copytree(made, run)
    weights = load_file(runs[1] / "model.safetensors")
    save_file({name: 1.01 * values for name, values in weights.items()}, runs[1] / "model.safetensors")
    both = ",".join(map(str, runs))

    def cases(*models: Path) -> int:
        """How many cases rests what is said of masks on?"""
        out = tmp_path / "+".join(model.name for model in models)
        assert call("segment", *pictures, "-m", ",".join(map(str, models)), "-o", out, "--overwrite") == 0
        told = json.loads((out / "segment.json").read_text())
        assert bool(told["images"][0]["quality"]) == bool(told["quality_learned_on"])
        return told["quality_learned_on"]

    assert cases(runs[0]) == 32
    assert cases(*runs) == 0
    assert "Each run was calibrated for the masks that it draws alone" in caplog.text
    assert call("calibrate", both, data, "--split", "all") == 0
    assert len(list(runs[0].glob("quality*.json"))) == 2
    assert not list(runs[1].glob("quality*.json"))
    assert [cases(*runs), cases(*runs[::-1]), cases(runs[0])] == [12, 0, 32]
    model = QualityModel.read(next(runs[0].glob("quality-*.json")))
    assert model.weights == tuple(sha256((run / "model.safetensors").read_bytes()).hexdigest() for run in runs)


def test_what_was_learned_of_other_weights_is_not_used(
    calibrated: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, picture = tmp_path / "run", next((calibrated[1] / "images").iterdir())
    shutil.copytree(calibrated[0], run)
    weights = load_file(run / "model.safetensors")
    save_file({name: 1.01 * values for name, values in weights.items()}, run / "model.safetensors")
    assert call("segment", picture, "--model", run, "--out", tmp_path / "out") == 0
    assert "is of other weights than the run has now" in caplog.text
    assert not json.loads((tmp_path / "out" / "segment.json").read_text())["images"][0]["quality"]


def test_few_patients_are_ranked_without_numbers(quick: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = tmp_path / "run", quick[1]
    shutil.copytree(quick[0], run)
    assert call("calibrate", run, data, "--split", "all") == 0
    quality = QualityModel.read(run / FILE).structures["foreground"]
    assert (quality.dice, quality.acceptance) == (None, None)
    assert call("segment", data, "--model", run, "--out", tmp_path / "out", "--review-share", "0.5") == 0
    found = rows(tmp_path / "out" / "quality.csv")
    assert {row["predicted_dice"] for row in found} == {""}
    assert sum(row["flag"] == "review" for row in found) >= 6


def test_of_structures_that_references_do_not_hold_nothing_is_learned_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_of(*TINY, "data.task=exclusive", "data.classes=[background,a,b]")
    run = tmp_path / "run"
    run.mkdir()
    write_run(run, config)
    told = json.loads((run / "config.json").read_text())
    told["config"]["data"] |= {"task": None, "classes": None}  # the data said so, not the user
    (run / "config.json").write_text(json.dumps(told))
    data = make_folder(tmp_path / "data", count=6)
    for mask in (data / "masks").iterdir():
        write_png(mask, 2 * (np.asarray(Image.open(mask)) > 0).astype(np.uint8))
    assert call("calibrate", run, data, "--split", "all") == 0
    assert list(QualityModel.read(run / FILE).structures) == ["b"]
    assert "Of a there are too few references" in caplog.text


@pytest.mark.parametrize(
    ("options", "why"),
    [(("--good", "1.5"), "good is 1.5"), (("--risk", "0"), "risk 0"), (("--split", "nothing"), "the split 'nothing'")],
)
def test_what_makes_no_sense_is_refused_and_writes_nothing(
    quick: tuple[Path, Path], options: tuple[str, ...], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("calibrate", *quick, *options) in (1, 2)
    assert why in " ".join(capsys.readouterr().err.split())
    assert not (quick[0] / FILE).exists()


def test_a_broken_file_is_refused_with_what_to_do_which_helps(
    quick: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Those cases training saw, which is said too."""
    run, data = tmp_path / "run", quick[1]
    shutil.copytree(quick[0], run)
    (run / FILE).write_text("{")
    assert call("segment", data, "--model", run, "--out", tmp_path / "out") == 1
    assert "Write it anew with 'medsegdiff calibrate'" in " ".join(capsys.readouterr().err.split())
    assert call("calibrate", run, data, "--split", "all") == 0
    model = QualityModel.read(run / FILE)
    assert 0 < model.trained <= model.cases
    assert "that training has seen" in caplog.text


def test_nothing_is_promised_without_reservation_of_cases_that_training_may_have_seen(
    quick: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    packed, more = tmp_path / "packed", make_folder(tmp_path / "more", count=32)
    assert call("pack", quick[0], packed, "--license", "apache-2.0") == 0
    assert call("calibrate", packed, more, "--split", "all", "--good", "0.01", "--risk", "0.4") == 0
    assert QualityModel.read(packed / FILE).trained is None
    assert f"{packed} does not tell all that it was trained on" in caplog.text
    said = " ".join(capsys.readouterr().err.split())
    assert "The model does not tell what it was trained on: if these cases are among that, this does not hold." in said
