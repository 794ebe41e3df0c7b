"""``medsegdiff doctor``, as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.program import call
from tests.unit.test_diagnosis import fresh_run


def test_a_run_with_nothing_wrong_ends_well(trained: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = trained
    status = call("doctor", run, "--device", "cpu", "--json", "--cases", "2")
    told = json.loads(capsys.readouterr().out)
    wrong = [finding for finding in told["findings"] if finding["verdict"] == "wrong"]
    assert status == (1 if wrong else 0)
    assert told["ok"] is not bool(wrong)
    assert {finding["group"] for finding in told["findings"]} >= {"weights", "training", "data", "sampler", "masks"}


def test_an_untrained_run_ends_with_one_and_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("doctor", fresh_run(tmp_path / "run"), "--device", "cpu") == 1
    shown = capsys.readouterr()
    assert "untrained" in " ".join(shown.out.split())
    assert "wrong" in shown.err


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("doctor", tmp_path / "nowhere") == 1
    assert "no such folder" in capsys.readouterr().err
