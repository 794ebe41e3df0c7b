"""What holds for all commands alike: version, quiet and verbose, progress, exit codes, old names."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import medsegdiff
from medsegdiff.cli import app
from medsegdiff.cli.command import Exit, guard
from tests.program import SETS, call

ONE = ("--members", "1", "--steps", "1", "--device", "cpu")


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--version") == 0
    installed = importlib.metadata.version("medsegdiff")
    assert capsys.readouterr().out == f"medsegdiff {installed}\n"
    assert medsegdiff.__version__ == installed


def test_the_package_does_not_ask_for_its_version_when_it_is_imported() -> None:
    code = "import medsegdiff, sys; print({'importlib.metadata', 'pydantic', 'torch'} & set(sys.modules))"
    shown = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(medsegdiff.__file__).parents[1])},
    )
    assert shown.stdout.strip() == "set()"


def test_quiet_leaves_results_and_errors(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, data = trained
    picture = data / "images" / "case00.png"
    assert call("segment", picture, "-m", run, "-o", tmp_path / "a", *ONE, "-q") == 0
    shown = capsys.readouterr()
    assert shown.out.strip() == str(tmp_path / "a")
    assert all(line.startswith("Warning: ") for line in shown.err.splitlines())
    assert call("-q", "segment", picture, "-m", run, "-o", tmp_path / "b", *ONE) == 0
    assert "Segmented" not in capsys.readouterr().err
    assert call("segment", picture, "-m", run, "-o", tmp_path / "c", *ONE) == 0  # the next one is not quiet
    assert "Segmented 1 of 1" in capsys.readouterr().err
    assert call("segment", picture, "-m", run, "-o", tmp_path / "c", *ONE, "-q") == 2
    assert "Add --overwrite" in capsys.readouterr().err


def test_progress_as_json_is_an_object_on_each_line_of_stderr(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, data = trained
    assert call("segment", data, "-m", run, "-o", tmp_path / "a", *ONE, "--progress", "json") == 0
    shown = capsys.readouterr()
    assert shown.out.strip() == str(tmp_path / "a")
    events = [json.loads(line) for line in shown.err.splitlines()]
    steps = [event for event in events if event["event"] == "progress"]
    assert [event["done"] for event in steps] == list(range(13))
    assert all(event["what"] == "Segmenting" and event["total"] == 12 for event in steps)
    assert steps[0]["eta_s"] is None
    assert steps[6]["eta_s"] > 0
    assert steps[-1]["share"] == 1
    assert steps[-1]["eta_s"] == 0
    assert any("Segmented 12 of 12" in event.get("text", "") for event in events)
    assert call("segment", data, "-m", run, "-o", tmp_path / "a", *ONE, "--progress", "json") == 2
    (error,) = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (error["event"], error["exit"]) == ("error", 2)


def test_training_tells_its_steps_as_events(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = ("--set", "train.max_steps=20", "--set", "train.val_every=20")
    assert call("train", folder, "-o", tmp_path / "run", *SETS, *steps, "--progress", "json") == 0
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    told = [event for event in events if event.get("what") == "training"]
    assert [event["done"] for event in told] == [0, 10, 20]
    assert "loss" in told[1]["note"]


@pytest.mark.parametrize(("mode", "lines"), [("plain", 1), ("auto", 1), ("none", 0)])
def test_without_a_terminal_progress_is_lines(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str, lines: int
) -> None:
    run, data = trained
    assert call("segment", data, "-m", run, "-o", tmp_path / "a", *ONE, "--progress", mode) == 0
    shown = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Segmenting: 12 of 12 (100%)")]
    assert len(shown) == lines


def test_some_failed_is_3_and_all_failed_is_1(trained: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = trained
    bad = tmp_path / "in" / "bad.png"
    bad.parent.mkdir()
    bad.write_bytes(b"no picture")
    assert call("segment", bad, "-m", run, "-o", tmp_path / "a", *ONE) == Exit.FAILED
    assert call("segment", bad, data / "images" / "case00.png", "-m", run, "-o", tmp_path / "a", *ONE) == 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, Exit.INTERRUPTED), (signal.SIGTERM, Exit.TERMINATED)])
def test_a_signal_ends_a_command_with_its_code(
    trained: tuple[Path, Path], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    run, data = trained
    arguments = ["segment", data, "-m", run, "-o", tmp_path / "out", "--members", "400", "--progress", "json"]
    running = subprocess.Popen([sys.executable, "-m", "medsegdiff", *map(str, arguments)], stderr=subprocess.PIPE)
    assert running.stderr is not None
    assert b'"progress"' in running.stderr.readline()
    running.send_signal(number)
    _, said = running.communicate(timeout=60)
    assert running.returncode == code
    assert b"Traceback" not in said


def test_ctrl_c_reaches_a_command_that_a_script_started_in_the_background() -> None:
    """A shell without job control starts it with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(SystemExit, match=str(Exit.INTERRUPTED.value)):
            guard(lambda: signal.raise_signal(signal.SIGINT))
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["report", "table1"], "paper table1"),
        (["report", "table5"], "paper table5"),
        (["reproduce", "table5", "--size", "64"], "paper table5"),
        (["reproduce", "figure3", "--data", "gone", "--runs", "none"], "paper figure3"),
        (["reproduce", "table4", "--data", "gone", "--budget", "1"], "paper table4"),
        (["benchmark", "ensemble", "none", "gone"], "paper figure3"),
    ],
)
def test_old_names_work_and_name_the_new_ones(
    old: list[str], new: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    works = 1 if "gone" in old else 0
    assert call(*old) == works or (works and call(*old) in (1, 2))
    said = " ".join(capsys.readouterr().err.split())
    assert f"Warning: 'medsegdiff {' '.join(old[:2])}' is 'medsegdiff {new}' now" in said
    assert "No such" not in said
    assert call("--help") == 0
    assert "reproduce" not in capsys.readouterr().out


def test_what_is_written_is_what_was_asked_for(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, data = trained
    asked = ("segment", data / "images" / "case00.png", "-m", run, *ONE)
    written = {}
    for name, options in {"usual": (), "few": ("--write", "masks,probability"), "all": ("--write", "all")}.items():
        assert call(*asked, "-o", tmp_path / name, *options) == 0
        written[name] = {path.name for path in (tmp_path / name).iterdir() if path.is_dir()}
    assert written["few"] == {"cases", "masks", "probability"}
    assert written["usual"] == {"cases", "masks", "labels", "probability", "uncertainty", "anchor", "overlay"}
    assert written["all"] == written["usual"] | {"members", "geojson"}
    capsys.readouterr()
    assert call(*asked, "-o", tmp_path / "old", "--save-members") == 0
    assert "--save-members is '--write all' now" in capsys.readouterr().err
    assert (tmp_path / "old" / "members").is_dir()
    assert call(*asked, "-o", tmp_path / "wrong", "--write", "mask") == 2
    assert "Did you mean 'masks'" in capsys.readouterr().err


def test_a_check_and_a_plan_write_nothing_unasked(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert call("data", "check", folder) == 0
    assert call("data", "plan", folder, "-d", "cpu") == 0
    assert "--out plan.yaml makes a preset of it" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
    assert call("data", "plan", folder, "-d", "cpu", "-o", "plan.yaml") == 0
    assert Path("plan.yaml").is_file()


def names_of(program: Any, before: str = "") -> Iterator[str]:
    for name, command in program.commands.items():
        yield from names_of(command, f"{name} ") if hasattr(command, "commands") else [before + name]


def test_the_document_has_every_command_and_every_exit_code() -> None:
    page = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")
    told = page.split("## Options")[0].replace("table1 … table5", "table1 table2 table3 table4 table5")
    for name in names_of(typer.main.get_command(app)):
        assert all(re.search(rf"\b{word}\b", told) for word in name.split()), f"{name} is missing"
    codes = [int(code) for code in re.findall(r"^\| (\d+) \|", page, flags=re.MULTILINE)]
    assert codes == [int(code) for code in Exit]
