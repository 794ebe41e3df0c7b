"""``medsegdiff paper``: the ablation from training to the table, its interruption, costs, curves, wrong names."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from medsegdiff.config.load import load_preset
from medsegdiff.config.spec import assumed
from medsegdiff.errors import ConfigError, TrainingError
from medsegdiff.evaluation.results import read_results
from medsegdiff.models.base import budget
from medsegdiff.paper import ablation, trials
from medsegdiff.paper.ablation import extended, interval
from medsegdiff.paper.ablation_plan import AblationPlan, find_variants
from medsegdiff.paper.costs import ROWS
from medsegdiff.paper.tables import load_table
from medsegdiff.paper.trials import Trial, minutes_left
from tests.integration.test_training import stopping_at
from tests.makers import SMALL, make_folder
from tests.program import call

SETS = [part for value in (*SMALL, "train.val_cases=1") for part in ("--set", value)]
ASK = ["--budget", "0.005", "--members", "2", "--steps", "1", *SETS]
ROW = ["--row", "u-sa"]


@dataclass(frozen=True)
class Made:
    """A reproduction of two rows and two seeds that was interrupted in the first run, then gone on with."""

    out: Path
    data: Path
    first: int
    """Exit code of the first call."""
    finished_first: int
    """Runs that were finished then."""
    resumed: tuple[bool, ...]
    """Whether each training of the second call was resumed."""

    def __iter__(self) -> Iterator[Path]:
        return iter((self.out, self.data))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    base, resumed, real = tmp_path_factory.mktemp("reproduced"), [], trials.train
    data, out = make_folder(base / "lesions"), base / "out"
    ask = ["paper", "table4", "--data", data, "--out", out, *ROW, "--row", "Baseline", "--seeds", "2", *ASK]
    patch = stopping_at(2)
    first = call(*ask)
    patch.undo()
    finished = len(list(out.glob("runs/*/*/done.json")))
    with pytest.MonkeyPatch.context() as spy:
        spy.setattr(trials, "train", lambda *a, **k: resumed.append(k["resume"]) or real(*a, **k))
        assert call(*ask) == 0
    return Made(out, data, first, finished, tuple(resumed))


def table_of(out: Path) -> dict[tuple[str, str], dict[str, str]]:
    """Read the CSV by method and whose."""
    with (out / "table4.csv").open(encoding="utf-8") as file:
        return {(row["method"], row["whose"]): row for row in csv.DictReader(file)}


def trials_of(out: Path, data: Path, *rows: str, seeds: int = 1) -> list[Trial]:
    return AblationPlan(str(data), 7.0, seeds=seeds).trials(out, find_variants(rows), data)


def test_a_budget_of_seconds_goes_through_to_the_table(made: Made) -> None:
    out, _ = made
    told = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert list(told["rows"]) == ["Baseline", "U-SA"]
    assert told["rows"]["U-SA"]["paper"]["AMOS Ave-Dice"] == 86.7
    found = table_of(out)
    assert found["U-SA", "paper"]["BTCV Ave-Dice"] == "86.6"
    assert found["U-SA", "paper"]["lesions Dice"] == ""
    for name in ("Baseline", "U-SA"):
        runs = [out / "runs" / name / f"seed-{seed}" for seed in range(2)]
        dice, anchor = ([100 * read_results(r / "scores" / p).mean("dice").mean for r in runs] for p in ("", "anchor"))
        assert found[name, "ours"]["lesions Dice"] == f"{sum(dice) / 2:.1f}"
        assert found[name, "ours"]["lesions Dice of the anchor"] == f"{sum(anchor) / 2:.1f}"
        assert found[name, "ours"]["AMOS Ave-Dice"] == ""
        reach = 12.7062 * abs(dice[0] - dice[1]) / 2  # t of one degree of freedom
        low, high = (float(found[name, f"ours, 95 % {end}"]["lesions Dice"]) for end in ("low", "high"))
        assert (low, high) == pytest.approx((sum(dice) / 2 - reach, sum(dice) / 2 + reach), abs=0.051)
        assert not (runs[0] / "masks" / "members").exists()
    assert found["Baseline", "ours"]["lesions steps"].isdecimal()
    assert "| **U-SA** | ours |" in (out / "table4.md").read_text(encoding="utf-8")


def test_rows_differ_in_the_ablation_alone_and_seeds_in_the_seed(made: Made) -> None:
    out, _ = made
    configs = {
        path.relative_to(out / "runs").parts[:2]: json.loads(path.read_text(encoding="utf-8"))["config"]
        for path in out.glob("runs/*/*/run/config.json")
    }
    assert len(configs) == 4
    base = configs["U-SA", "seed-0"]
    assert base["train"]["max_minutes"] == 0.005
    other, again = configs["Baseline", "seed-0"], configs["U-SA", "seed-1"]
    assert {key for key in base["model"] if base["model"][key] != other["model"][key]} == {
        "anchor_condition",
        "see_image",
    }
    assert {**other, "model": base["model"]} == base
    assert {**again, "train": {**again["train"], "seed": 0}} == base
    assert again["train"]["seed"] == 1


def test_what_is_finished_is_kept(
    made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, data = made
    monkeypatch.setattr(trials, "perform", lambda trial, *_, **__: pytest.fail(f"{trial} is there already"))
    assert call("paper", "table4", "--data", data, "--out", out, *ROW, "--seeds", "1", *ASK) == 0
    shown = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(shown) if line.split()[1:3] == ["U-SA", "paper"])
    assert "ours" in shown[at + 1]
    assert "95 %" not in shown[at + 2]  # of one seed there is no interval


def test_an_interrupted_reproduction_goes_on_from_the_checkpoint(made: Made) -> None:
    assert (made.first, made.finished_first) == (130, 0)
    assert made.resumed == (True, False, False, False)
    (trial, *_) = trials_of(made.out, made.data, "Baseline")
    assert trial.facts()["steps"] > 2


def test_a_folder_goes_with_its_plan(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    ask = ["paper", "table4", "--data", made.data, "--out", made.out, *ROW, *ASK]
    assert call(*ask, "--set", "data.augment=false") == 2
    assert "other values of changes" in " ".join(capsys.readouterr().err.split())


def test_a_run_that_fails_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Made) -> None:
    asked = []

    def perform(trial: Trial, *_: object, **__: object) -> None:
        asked.append((trial.row, trial.seed))
        if trial.row == "SA":
            raise TrainingError("not finite")

    monkeypatch.setattr(trials, "perform", perform)
    failed = ablation.ablate(
        AblationPlan(str(made.data), 1.0, seeds=2), find_variants(["SA", "U-SA"]), tmp_path / "out"
    )
    assert asked == [("SA", 0), ("U-SA", 0), ("SA", 1), ("U-SA", 1)]
    assert failed == {"SA, seed 0": "not finite", "SA, seed 1": "not finite"}


def test_the_time_left_is_that_of_finished_runs(made: Made) -> None:
    """Of a row of which some are finished theirs, of others that of all."""
    out, data = made
    seconds = {
        row: [trial.facts()["seconds"] for trial in trials_of(out, data, row, seeds=2)] for row in ("Baseline", "U-SA")
    }
    every = trials_of(out, data, "Baseline", "U-SA", "SA", seeds=3)
    means = [sum(of) / 2 / 60 for of in seconds.values()]
    assert minutes_left(every, 7.0) == pytest.approx(sum(means) + 3 * sum(means) / 2)
    assert minutes_left(trials_of(out / "nothing", data, seeds=3), 7.0) == 15 * 7


def test_the_phantom_is_written_once(tmp_path: Path) -> None:
    asked = AblationPlan("phantom", 1.0)
    folder = asked.folder(tmp_path, counts=(2, 1, 1))
    assert len(list((folder / "images").iterdir())) == 4
    assert (asked.label, asked.config(find_variants()[0]).data.image_size) == ("phantom", 64)
    assert asked.folder(tmp_path) == folder
    assert len(list((folder / "images").iterdir())) == 4  # else all 480 would be there


def test_data_of_a_benchmark_stand_in_the_paper_s_column() -> None:
    table = extended(load_table("table4"), "refuge2")
    assert "refuge2 Dice" not in {column.title for column in table.columns}
    assert "phantom Dice" in {column.title for column in extended(table, "phantom").columns}


def test_an_interval_over_seeds_is_student_s() -> None:
    """By hand: mean 2, s = 1, t(2) = 4.3027."""
    score = interval([1.0, 2.0, 3.0])
    assert score.mean == 2
    assert score.interval == pytest.approx((2 - 4.3027 / math.sqrt(3), 2 + 4.3027 / math.sqrt(3)), abs=1e-4)
    assert interval([1.0]).interval is None


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not a reproduction"):
        AblationPlan("phantom", 1.0).claim(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tabel4"], "Known: figure3, table1, table2, table3, table4, table5. Did you mean 'table4'?"),
        (["table4", "--data", "phantom"], "takes --data and --budget"),
        (["table4", "V2=scores", "--data", "phantom", "--budget", "1"], "no results of other runs"),
        (["table4", "--data", "phantom", "--budget", "1", "--row", "SSFormer"], "No row 'SSFormer'"),
        (["table4", "--data", "phantom", "--budget", "1", "--preset", "v1"], "of the network medsegdiff-v1"),
        (["table4", "--data", "no/such/data", "--budget", "1"], "there is no such folder"),
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


def test_table_5_counts_what_its_presets_cost_and_takes_scores(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    scores = made.out / "runs" / "U-SA" / "seed-0" / "scores"
    given = [f"medsegdiff-v2={scores}", f"mine={scores}", "--format", "csv"]
    assert call("paper", "table5", *given, "--size", "64", "--members", "3", "--steps", "7") == 0
    shown = csv.DictReader(capsys.readouterr().out.splitlines())
    found = {row["method"]: row for row in shown if row["whose"] == "ours"}
    price = budget(assumed(load_preset("v2-paper", ["data.image_size=64"])))
    ours = found["MedSegDiff-V2"]
    assert ours["Params (M)"] == f"{price.parameters / 1e6:.1f}"
    assert (ours["members"], ours["calls"]) == ("3", "21")
    assert ours["GMAC in all"] == f"{price.condition_gmac + 21 * price.denoiser_gmac:.1f}"
    assert float(found["bone + U-SA"]["Params (M)"]) < float(found["bone + SS-Former"]["Params (M)"]) < 46.9
    assert float(found["MedSegDiff"]["Params (M)"]) == pytest.approx(130.8, rel=0.0005)
    dice = f"{100 * read_results(scores).mean('dice').mean:.1f}"
    assert [row["Dice"] for row in (ours, found["mine"], found["MedSegDiff"])] == [dice, dice, ""]
    assert found["mine"]["Params (M)"] == ""


def test_every_row_of_table_5_has_a_network() -> None:
    assert set(ROWS) == {row.method for row in load_table("table5").rows}


def test_figure_3_is_the_curve_of_the_runs(made: Made, tmp_path: Path) -> None:
    out, data = made
    run = out / "runs" / "U-SA" / "seed-0" / "run"
    ask = [run, data, "--out", tmp_path, "--members", "4", "--steps", "1", "--cases", "1"]
    assert call("paper", "figure3", *ask) == 0
    told = json.loads((tmp_path / "curve.json").read_text(encoding="utf-8"))
    assert told["runs"]["run"]["num_members"][-1] == 4
    assert (tmp_path / "curve.png").is_file()
