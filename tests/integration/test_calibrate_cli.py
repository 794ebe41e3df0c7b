"""From a run to a worklist: calibrate, segment with quality, evaluate what was predicted."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from medsegdiff.inference.quality import FILE, QualityModel
from tests.makers import make_folder
from tests.program import call


@pytest.fixture(scope="module")
def calibrated(trained: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run that has seen 40 other pictures."""
    base = tmp_path_factory.mktemp("quality")
    shutil.copytree(trained[0], base / "run")
    more = make_folder(base / "more", count=40)
    assert call("calibrate", base / "run", more, "--split", "all", "--good", "0.3", "--risk", "0.4") == 0
    return base / "run", more


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def test_a_run_learns_what_its_scores_say(calibrated: tuple[Path, Path]) -> None:
    model = QualityModel.of_run(calibrated[0])
    quality = model.structures["foreground"]
    assert (model.cases, model.patients, model.good, model.risk) == (40, 40, 0.3, 0.4)
    known = {name: area for name, area in quality.aurc.items() if name not in ("random", "oracle")}
    assert quality.aurc["oracle"] <= known[quality.score] == min(known.values())
    assert quality.dice is not None
    assert list(quality.dice.dice) == sorted(quality.dice.dice)


def test_segment_writes_a_worklist_the_worst_first(calibrated: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = calibrated
    out = tmp_path / "out"
    assert call("segment", data, "--model", run, "--out", out, "--review-share", "25%") == 0
    found = rows(out / "quality.csv")
    assert len(found) == 40
    marked = [row["flag"] == "review" for row in found]
    assert marked == sorted(marked, reverse=True)
    assert sum("among the worst 25 %" in row["reasons"] for row in found) == 10
    told = json.loads((out / "segment.json").read_text())["images"]
    by_name = {image["name"]: image["quality"]["foreground"] for image in told}
    for row in found:
        assert float(row["predicted_dice"]) == pytest.approx(by_name[row["name"]]["predicted_dice"], abs=1e-4)
        assert float(row["dice_at_least"]) <= float(row["predicted_dice"])
    page = (out / "quality.html").read_text()
    assert "Which masks must a human see?" in page
    assert "data:image/jpeg" in page


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
    assert "quality.json is of other masks" in caplog.text
    assert f"'medsegdiff calibrate {run} DATA'" in " ".join(capsys.readouterr().err.split())


def test_few_patients_are_ranked_without_numbers(trained: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = tmp_path / "run", trained[1]
    shutil.copytree(trained[0], run)
    assert call("calibrate", run, data, "--split", "all") == 0
    quality = QualityModel.of_run(run).structures["foreground"]
    assert (quality.dice, quality.acceptance) == (None, None)
    assert call("segment", data, "--model", run, "--out", tmp_path / "out", "--review-share", "0.5") == 0
    found = rows(tmp_path / "out" / "quality.csv")
    assert {row["predicted_dice"] for row in found} == {""}
    assert sum(row["flag"] == "review" for row in found) >= 6


@pytest.mark.parametrize(
    ("options", "why"),
    [(("--good", "1.5"), "good is 1.5"), (("--risk", "0"), "risk 0"), (("--split", "nothing"), "the split 'nothing'")],
)
def test_what_makes_no_sense_is_refused_and_writes_nothing(
    trained: tuple[Path, Path], options: tuple[str, ...], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("calibrate", *trained, *options) in (1, 2)
    assert why in " ".join(capsys.readouterr().err.split())
    assert not (trained[0] / FILE).exists()


def test_a_broken_file_is_refused_with_what_to_do(
    calibrated: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, data = tmp_path / "run", calibrated[1]
    shutil.copytree(calibrated[0], run)
    (run / FILE).write_text("{")
    assert call("segment", data, "--model", run, "--out", tmp_path / "out") == 1
    assert "Write it anew with 'medsegdiff calibrate'" in " ".join(capsys.readouterr().err.split())
