"""``medsegdiff data plan``: from a folder of scans to a preset that trains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medsegdiff.models.checkpoint import load_config
from tests.makers import PLAIN, SMALL
from tests.program import call
from tests.scans import make_scans

FEW = [value for value in (*PLAIN, *SMALL) if not value.startswith(("data.image_size", "train.batch_size"))]
SETS = [part for value in FEW for part in ("--set", value)]


def test_the_plan_of_a_ct_is_printed_and_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, file, run = make_scans(tmp_path / "data"), tmp_path / "plan.yaml", tmp_path / "run"
    assert call("data", "plan", data, "--out", file, "--device", "cpu", "--memory", "2", *SETS) == 0
    shown = capsys.readouterr()
    for words in (
        "ct, window 30 … 300 HU (guessed from values)",
        "0.5 × 0.75 × 3",
        "6, axial",
        "v2-fast-tiny",
        "64 px",
    ):
        assert words in shown.out
    assert f"--preset {file}" in shown.err
    steps = ["--set", "train.max_steps=2", "--set", "data.image_size=32"]
    assert call("train", data, "--out", run, "--preset", file, "--device", "cpu", *steps) == 0
    assert "; ct, window 30 … 300 HU;" in " ".join(capsys.readouterr().err.split())
    config = load_config(run)
    assert (config.data.modalities, config.data.window) == (("ct",), (30, 300))
    assert config.model.filter_blocks == 2  # what was fixed for the plan is in its file
    assert call("train", data, "--out", run, "--resume", "--set", "train.max_steps=3", "--device", "cpu") == 0
    assert load_config(run).data == config.data


def test_the_plan_speaks_json(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--out", tmp_path / "p.yml", "--device", "cpu", "--json", "--preset", "v2-small", "--memory", "0.7"]
    assert call("data", "plan", folder, *asked) == 0
    shown = capsys.readouterr()
    told = json.loads(shown.out)
    assert told["fingerprint"]["kind"] == "pictures"
    assert told["fingerprint"]["spacing"] is None
    assert (told["preset"], told["batch_size"], told["accumulate"], told["fits"]) == ("v2-small", 1, 16, False)
    assert "Choose a smaller --preset" in shown.err


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--out", "plan.txt"], 2, "ends in .yaml"),
        (["--preset", "v3"], 2, "No preset 'v3'"),
        (["--device", "tpu9"], 2, "can't be used"),
        (["--set", "data.modalities=[ct]"], 2, "these are pictures"),
    ],
)
def test_what_is_wrong_is_said_and_no_plan_is_written(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    code: int,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("data", "plan", folder, *options) == code
    assert words in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.glob("plan*"))
