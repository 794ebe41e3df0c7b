"""``medsegdiff paper`` and ``medsegdiff compare``, as a user types them."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from medsegdiff.models.base import budget
from medsegdiff.models.checkpoint import load_config
from medsegdiff.paper.costs import costs
from medsegdiff.training.memory import describe
from tests.program import call


@pytest.fixture(scope="module")
def scored(trained: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run, its segmentation, and the scores of its fused masks and of its anchor."""
    run, data = trained
    root = tmp_path_factory.mktemp("scored")
    places = {"run": run, "data": data, "out": root / "out", "fused": root / "fused", "anchor": root / "anchor"}
    assert call("segment", data, "--model", run, "--out", places["out"], "--members", "3", "--steps", "2") == 0
    assert call("evaluate", places["out"], data, "--out", places["fused"]) == 0
    assert call("evaluate", places["out"] / "anchor", data, "--out", places["anchor"]) == 0
    return places


@pytest.mark.parametrize("name", ["table1", "table2", "table3", "table4", "table5"])
@pytest.mark.parametrize("form", ["text", "csv", "latex", "markdown"])
def test_every_table_is_printed_without_results(name: str, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("paper", name, "--format", form) == 0
    shown = capsys.readouterr().out
    assert "MedSegDiff-V2" in shown
    assert "ours" not in {word.strip('",|*') for line in shown.splitlines() for word in line.split(",")}


def test_no_network_is_needed_to_print_a_table() -> None:
    code = (
        "import sys; from medsegdiff import cli; sys.argv = ['medsegdiff', 'paper', 'table5']\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "print({'torch', 'monai'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "set()"


def test_our_scores_stand_below_the_paper_s(scored: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    summary = json.loads((scored["fused"] / "metrics.json").read_text(encoding="utf-8"))["summary"]
    assert call("paper", "table1", f"MedSegDiff-V2/ISIC={scored['fused']}", f"small/ISIC={scored['anchor']}") == 0
    lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if "MedSegDiff-V2" in line and "paper" in line)
    assert lines[at].split()[-2:] == ["93.2", "85.3†"]
    assert lines[at + 1].split()[-2:] == [f"{100 * summary[key]['mean']:.1f}" for key in ("dice", "iou")]
    low, high = (100 * bound for bound in summary["iou"]["ci95"])
    assert lines[at + 2].split()[-1] == f"{low:.1f}–{high:.1f}"
    assert any("small" in line and "ours" in line for line in lines)
    assert any(f"MedSegDiff-V2: 12 cases of {scored['fused']}" in line for line in lines)


def test_table_5_takes_what_each_folder_knows(
    scored: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run is found through segment.json; a run alone has its own sampling, scores alone have none."""
    file = tmp_path / "table5.csv"
    results = [
        f"all={scored['fused']}",
        f"all={scored['out']}",
        f"run={scored['run']}",
        f"scores={scored['fused']}",
    ]
    assert call("paper", "table5", *results, "--format", "csv", "--out", file) == 0
    assert str(file) in capsys.readouterr().err
    read = csv.DictReader(file.read_text(encoding="utf-8").splitlines())
    rows = {row["method"]: row for row in read if row["whose"] in ("paper", "ours")}
    config, price = load_config(scored["run"]), budget(load_config(scored["run"]))
    made = json.loads((scored["out"] / "segment.json").read_text(encoding="utf-8"))
    summary = json.loads((scored["fused"] / "metrics.json").read_text(encoding="utf-8"))["summary"]
    agreement = sum(image["agreement"] for image in made["images"]) / 12
    assert {key: value for key, value in rows["all"].items() if value} == {
        "method": "all",
        "whose": "ours",
        "Params (M)": f"{price.parameters / 1e6:.1f}",
        "GMAC per forward": f"{price.condition_gmac + price.denoiser_gmac:.1f}",
        "calls": "6",
        "members": "3",
        "GMAC in all": f"{price.condition_gmac + 6 * price.denoiser_gmac:.1f}",
        "agreement": f"{100 * agreement:.1f}",
        "Dice": f"{100 * summary['dice']['mean']:.1f}",
        "s per image": f"{made['seconds'] / 12:.2f}",
    }
    own = config.sampling
    assert rows["run"]["calls"] == str(own.members * own.steps)
    assert rows["run"]["Dice"] == rows["run"]["agreement"] == ""
    assert rows["scores"]["Dice"] == rows["all"]["Dice"]
    assert rows["scores"]["Params (M)"] == rows["scores"]["members"] == ""
    assert rows["MedSegDiff-V2"]["Gflops"] == "983"


def test_operations_are_those_of_info(scored: dict[str, Path]) -> None:
    facts, found = describe(str(scored["run"])), costs([scored["run"]])
    assert found["parameters"].mean == facts["parameters"]
    assert found["gmac_forward"].mean == pytest.approx(facts["gmac"]["forward"], abs=0.0005)
    price, sampling = budget(load_config(scored["run"])), load_config(scored["run"]).sampling
    assert found["calls"].mean == sampling.members * sampling.steps
    assert found["gmac_all"].mean == pytest.approx(price.condition_gmac + found["calls"].mean * price.denoiser_gmac)


def test_one_member_agrees_with_nobody(scored: dict[str, Path], tmp_path: Path) -> None:
    made = json.loads((scored["out"] / "segment.json").read_text(encoding="utf-8"))
    made["sampling"]["members"] = 1
    made["images"] = [image | {"members": 1} for image in made["images"]]
    (tmp_path / "segment.json").write_text(json.dumps(made), encoding="utf-8")
    assert call("paper", "table5", f"one={tmp_path}", "--format", "csv", "--out", tmp_path / "t.csv") == 0
    *_, row = csv.DictReader((tmp_path / "t.csv").read_text(encoding="utf-8").splitlines())
    assert (row["method"], row["members"], row["agreement"]) == ("one", "1", "")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["paper", "table6"], 2, "Nothing of the paper is called 'table6'. Known: figure3, table1,"),
        (["paper", "table1", "--format", "word"], 2, "Invalid value"),
        (["paper", "table1", "V2=FUSED"], 2, "is not of the form NAME/DATA=FOLDER, DATA being one of REFUGE2-Disc"),
        (["paper", "table1", "V2/BRATZ=FUSED"], 2, "no column for 'BRATZ'"),
        (["paper", "table2", "V2=gone"], 1, "found no such folder"),
        (["paper", "table5", "V2=BROKEN"], 1, "expected what 'medsegdiff segment' writes"),
        (["compare", "FUSED"], 2, "expected two or more"),
        (["compare", "FUSED", "gone"], 1, "found no such folder"),
        (["compare", "FUSED", "ANCHOR", "--metric", "dics"], 2, "Did you mean 'dice'"),
        (["compare", "FUSED", "FEWER"], 1, "1 of 12 cases are in"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    scored: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    told = json.loads((scored["fused"] / "metrics.json").read_text(encoding="utf-8"))
    for name in ("fewer", "broken"):
        (tmp_path / name).mkdir()
    told["cases"] = told["cases"][1:]
    (tmp_path / "fewer" / "metrics.json").write_text(json.dumps(told), encoding="utf-8")
    (tmp_path / "broken" / "segment.json").write_text("[]", encoding="utf-8")
    places = {"FUSED": scored["fused"], "ANCHOR": scored["anchor"]}
    places |= {"FEWER": tmp_path / "fewer", "BROKEN": tmp_path / "broken"}
    for key, place in places.items():
        arguments = [argument.replace(key, str(place)) for argument in arguments]
    assert call(*arguments, "--out", tmp_path / "made") == code
    shown = capsys.readouterr()
    assert words in " ".join(shown.err.split())
    assert "Traceback" not in shown.err
    assert not (tmp_path / "made").exists()


def test_runs_are_compared(scored: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("compare", f"fused={scored['fused']}", f"anchor={scored['anchor']}", "--out", tmp_path) == 0
    shown = capsys.readouterr()
    assert "12 cases, compared with fused" in shown.out
    assert "p_holm: " in shown.err
    told = json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"))
    means = {
        name: json.loads((scored[name] / "metrics.json").read_text(encoding="utf-8"))["summary"]
        for name in ("fused", "anchor")
    }
    common = [metric for metric in means["fused"] if metric in means["anchor"]]  # an anchor states no size
    assert [row["metric"] for row in told["differences"]] == common
    for row in told["differences"]:
        gain = means["anchor"][row["metric"]]["mean"] - means["fused"][row["metric"]]["mean"]
        assert row["mean"] == pytest.approx(gain)
    assert (tmp_path / "differences.png").stat().st_size > 5000


def test_a_run_is_no_different_from_itself(
    scored: dict[str, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(scored["fused"].parent)
    assert call("compare", "fused", "again=fused", "--json", "--metric", "dice") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["runs"] == ["fused", "again"]
    (row,) = told["differences"]
    assert (row["mean"], row["ci95"], row["p"], row["verdict"]) == (0, [0, 0], 1, "not real")


def test_a_folder_may_have_an_equals_sign(scored: dict[str, Path], tmp_path: Path) -> None:
    odd = tmp_path / "t=5"
    odd.mkdir()
    (odd / "metrics.json").write_bytes((scored["anchor"] / "metrics.json").read_bytes())
    assert call("compare", scored["fused"], odd, "--json") == 0
    assert call("paper", "table2", f"V2={odd}") == 0
