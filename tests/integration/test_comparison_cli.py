"""``medsegdiff paper table1 … table3 --data``: from training to the table, gone on with, left out, failing."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from medsegdiff.data.phantom import PhantomSource
from medsegdiff.errors import TrainingError
from medsegdiff.evaluation.results import read_results
from medsegdiff.paper import given_data, trials
from medsegdiff.paper.trials import Trial
from tests.makers import SMALL_NETWORKS, disc, make_folder, write_png
from tests.program import call

SETS = (
    "data.image_size=32",
    "train.batch_size=4",
    "train.precision=fp32",
    "train.val_cases=1",
    *SMALL_NETWORKS["nnunet"],
    *SMALL_NETWORKS["anchor"],
)
SMALL = [part for value in SETS for part in ("--set", value)]
ASK = ["--budget", "0.002", "--size", "tiny", "--device", "cpu", *SMALL]


def rows_of(file: Path) -> dict[tuple[str, str], dict[str, str]]:
    """Read the CSV by method and whose."""
    with file.open(encoding="utf-8") as lines:
        return {(row["method"], row["whose"]): row for row in csv.DictReader(lines)}


def written(out: Path) -> dict[Path, int]:
    """When each file of the trials was written."""
    return {path: path.stat().st_mtime_ns for path in out.glob("runs/**/*") if path.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A system on one data set with two seeds; the folder of the trials lies beside the data."""
    base = tmp_path_factory.mktemp("compared")
    data = make_folder(base / "lesions")
    ask = ["paper", "table1", "--data", f"isic={data}", "--out", base / "out", "--seeds", "2", "--cases", "2", *ASK]
    assert call(*ask, "--systems", "nnunet", "--format", "html") == 0
    return base


def test_systems_are_trained_scored_and_laid_below_the_paper_s(made: Path) -> None:
    found = rows_of(made / "out" / "table1.csv")
    assert found["nnUNet", "paper"]["ISIC Dice"] == "90.8"
    assert "BraTs Dice" not in found["nnUNet", "paper"]
    runs = [made / "out" / "runs" / "ISIC" / "nnUNet" / f"seed-{seed}" for seed in range(2)]
    dice = np.array([read_results(run / "scores").scores.column("dice") for run in runs])
    assert dice.shape == (2, 2)
    ours = found["nnUNet", "ours"]
    assert ours["ISIC Dice"] == f"{100 * dice.mean():.1f}"
    between = [float(found["nnUNet", f"ours, 95 % {end}"]["ISIC Dice"]) for end in ("low", "high")]
    assert between == pytest.approx(sorted(100 * dice.mean(axis=0)), abs=0.051)  # of two cases: one, or the other
    facts = [json.loads((run / "done.json").read_text(encoding="utf-8")) for run in runs]
    assert ours["ISIC steps"] == f"{sum(fact['steps'] for fact in facts) / 2:.0f}"
    assert ours["ISIC seconds"] == f"{sum(fact['seconds'] for fact in facts) / 2:.0f}"
    config = json.loads((runs[1] / "run" / "config.json").read_text(encoding="utf-8"))["config"]
    assert (config["train"]["seed"], config["train"]["max_minutes"]) == (1, 0.002)
    told = json.loads((made / "out" / "results.json").read_text(encoding="utf-8"))
    assert told["rows"]["nnUNet"]["preset"] == "nnunet-tiny"
    assert set(told["rows"]["nnUNet"]["trials"]["ISIC"]) == {"0", "1"}
    page = (made / "out" / "table1.html").read_text(encoding="utf-8")
    assert "No data were given for REFUGE2-Disc, REFUGE2-Cup, BraTs, TNMIX: left out." in page
    assert page.count("<td>nnUNet<small>general · ") == 2


def test_a_second_call_trains_nothing_and_a_third_what_is_new(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(given_data, "PhantomSource", lambda reading, counts: PhantomSource(reading, counts=(6, 2, 2)))
    before = written(made / "out")
    ask = ["paper", "table1", "--data", f"ISIC={made / 'lesions'}", "--out", made / "out", "--cases", "2", *ASK]
    assert call(*ask, "--systems", "nnunet", "--seeds", "2") == 0
    assert written(made / "out") == before
    assert call(*ask, "--systems", "nnunet", "--data", "refuge2=phantom") == 0
    after = written(made / "out")
    assert {path: after[path] for path in before} == before
    new = {path.relative_to(made / "out" / "runs").parts[:3] for path in after.keys() - before.keys()}
    assert new == {("REFUGE2", "nnUNet", "seed-0")}
    shown = capsys.readouterr().out
    assert "the data have one structure, foreground; it stands for REFUGE2-Disc, REFUGE2-Cup." in shown
    found = rows_of(made / "out" / "table1.csv")["nnUNet", "ours"]
    assert found["REFUGE2-Disc Dice"] == found["REFUGE2-Cup Dice"] != ""
    assert [title for title in found if title.endswith("Dice")] == [
        "REFUGE2-Disc Dice",
        "REFUGE2-Cup Dice",
        "ISIC Dice",
    ]


def test_a_folder_goes_with_its_plan_and_its_data(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask = ["paper", "table1", "--out", made / "out", "--cases", "2", "--systems", "nnunet", *ASK]
    assert call(*ask, "--data", f"isic={made / 'lesions'}", "--recipe", "common") == 2
    assert "other values of recipe" in " ".join(capsys.readouterr().err.split())
    assert call(*ask, "--data", "isic=phantom") == 2
    assert "other values of data ISIC" in " ".join(capsys.readouterr().err.split())


def test_a_system_that_fails_is_told_at_the_end_and_the_others_are_made(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    real = trials._trained

    def trained(trial: Trial, **given: object) -> int:
        if trial.row == "nnUNet":
            raise TrainingError("the loss is not finite")
        return real(trial, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(trials, "_trained", trained)
    ask = ["paper", "table1", "--data", f"isic={made / 'lesions'}", "--out", tmp_path / "out", *ASK]
    assert call(*ask, "--systems", "nnunet,anchor") == 3
    assert "nnUNet on ISIC, seed 0: the loss is not finite" in capsys.readouterr().out
    found = rows_of(tmp_path / "out" / "table1.csv")
    assert ("nnUNet", "ours") not in found
    assert found["Anchor", "ours"]["ISIC Dice"]
    assert call(*ask, "--systems", "nnunet") == 1


def test_budgets_are_measured_with_the_clock_that_is_asked_for(
    made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By a clock that is a second further at each look a step takes a second: twelve make a fifth of a minute."""
    monkeypatch.setitem(trials.CLOCKS, "processor", itertools.count(step=1.0).__next__)  # type: ignore[arg-type]
    ask = ["paper", "table1", "--data", f"isic={made / 'lesions'}", "--out", tmp_path / "out", *ASK, "--cases", "2"]
    ask[ask.index("--budget") + 1] = "0.2"
    assert call(*ask, "--systems", "nnunet", "--clock", "processor") == 0
    found = rows_of(tmp_path / "out" / "table1.csv")["nnUNet", "ours"]
    assert found["ISIC steps"] == "12"
    facts = json.loads((tmp_path / "out" / "runs" / "ISIC" / "nnUNet" / "seed-0" / "done.json").read_text("utf-8"))
    assert facts["seconds"] > 4
    assert float(facts["seconds"]).is_integer()
    assert "0.2 minutes (processor time" in (tmp_path / "out" / "table1.md").read_text(encoding="utf-8")
    assert call(*ask, "--systems", "nnunet") == 2


def test_runs_that_another_process_has_in_hand_are_left_to_it(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out" / "runs" / "ISIC" / "nnUNet" / "seed-0"
    folder.mkdir(parents=True)
    shutil.copy(made / "out" / "plan.json", tmp_path / "out")
    ask = ["paper", "table1", "--data", f"isic={made / 'lesions'}", "--out", tmp_path / "out", "--cases", "2", *ASK]
    with FileLock(folder / "lock"):
        assert call(*ask, "--systems", "nnunet,anchor") == 0
    assert "nnUNet on ISIC, seed 0: another process makes it now." in capsys.readouterr().err
    assert not (folder / "done.json").exists()
    assert (folder.parents[1] / "Anchor" / "seed-0" / "done.json").is_file()
    assert call(*ask, "--systems", "nnunet,anchor") == 0
    assert (folder / "done.json").is_file()


def test_organs_find_their_columns_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without cases for testing those for validation are scored, which is said; an organ of no column gets one."""
    rng, base = np.random.default_rng(0), tmp_path / "organs"
    for i in range(8):
        one, two, three = (disc((32, 32), place, 5) for place in ((10, 10), (22, 22), (10, 24)))
        image = 80 + 60 * one + 120 * two + 160 * three + rng.normal(0, 5, (32, 32))
        write_png(base / "images" / f"case{i}.png", np.clip(image, 0, 255).astype(np.uint8))
        write_png(base / "masks" / f"case{i}.png", (one + 2 * two + 3 * three).astype(np.uint8))
    split = "\n".join(f"case{i},{'train' if i < 5 else 'val'}" for i in range(8))
    (base / "split.csv").write_text(f"id,split\n{split}\n")
    named = ["--set", "data.classes=[background, LIVER, right_kidney, thymus]"]
    ask = ["paper", "table2", "--data", base, "--out", tmp_path / "out", "--systems", "Anchor", *ASK, *named]
    assert call(*ask) == 0
    assert "3 val cases (none for testing has a mask" in capsys.readouterr().out
    found = rows_of(tmp_path / "out" / "table2.csv")
    assert list(found["Anchor", "paper"])[2:-1] == [
        *("R.Kid", "Liver", "Avg.", "thymus", "mean of 3", "steps", "seconds")
    ]
    assert [float(found["Anchor", "paper"][title]) for title in ("R.Kid", "Liver", "Avg.")] == [0.901, 0.91, 0.781]
    results = read_results(tmp_path / "out" / "runs" / "organs" / "Anchor" / "seed-0" / "scores")
    ours = found["Anchor", "ours"]
    assert ours["Liver"] == f"{results.mean('dice', 'LIVER').mean:.3f}"
    assert ours["R.Kid"] == f"{results.mean('dice', 'right_kidney').mean:.3f}"
    assert ours["thymus"] == f"{results.mean('dice', 'thymus').mean:.3f}"
    assert (ours["Avg."], ours["mean of 3"]) == ("", f"{results.mean('dice').mean:.3f}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["table1", "--data", "isik=phantom", "--budget", "1"], "no column for 'isik'. Known: REFUGE2-Disc"),
        (["table1", "--data", "isik=phantom", "--budget", "1"], "Did you mean 'isic'?"),
        (["table1", "--data", "phantom", "--budget", "1"], "not of the form NAME=FOLDER"),
        (["table1", "--data", "isic=phantom", "--data", "isic2018=phantom", "--budget", "1"], "ISIC Dice, ISIC IoU"),
        (["table2", "--data", "no/such/data", "--budget", "1", "--systems", "Anchor"], "there is no such folder"),
        (["table1", "--data", "isic=phantom", "--budget", "1", "--systems", "nnUNett"], "Did you mean 'nnUNet'?"),
        (["table1", "--data", "isic=phantom"], "takes --data and --budget"),
        (["table1", "--systems", "nnUNet"], "takes --data and --budget"),
        (["table1", "V2/ISIC=x", "--data", "isic=phantom", "--budget", "1"], "no results of other runs"),
        (
            ["table1", "--data", "isic=phantom", "--budget", "1", "--systems", "nnunet", "--set", "train.max_step=8"],
            "Unknown key 'train.max_step'",
        ),
    ],
)
def test_wrong_names_say_what_is_known(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("paper", *arguments) in (1, 2)
    assert said in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []
