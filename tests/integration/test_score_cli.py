"""``medsegdiff train --start RUN --score``: from a distilled run to one that was trained on its own score."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from medsegdiff.models.checkpoint import load_config
from medsegdiff.training.run import Run
from tests.program import call


def test_a_run_is_distilled_scored_segments_and_says_what_it_is(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    run, data = trained
    quick, scored, masks = (tmp_path / name for name in ("quick", "scored", "masks"))
    few = ("--set", "train.max_steps=2", "--set", "train.val_every=2")
    assert call("train", data, "--out", quick, "--start", run, "--distill", *few) == 0
    capsys.readouterr()
    assert call("train", data, "--out", tmp_path / "dry", "--start", quick, "--score", "--dry-run") == 0
    told = yaml.safe_load(capsys.readouterr().out)["train"]
    assert (told["max_steps"], told["score_members"], told["teacher"]) == (2, 4, None)  # as long as the distillation
    assert call("train", data, "--out", tmp_path / "dry", "--start", run, "--score", "--dry-run") == 0
    assert yaml.safe_load(capsys.readouterr().out)["train"]["max_steps"] == 1  # a quarter of six
    assert call("train", data, "--out", scored, "--start", quick, "--score") == 0
    config = load_config(scored)
    assert (config.sampling.steps, config.sampling.spacing, config.train.val_steps) == (1, "trailing", 1)
    assert call("train", data, "--out", scored, "--resume", "--set", "train.max_steps=3") == 0
    assert Run(scored).lines()[-1]["step"] == 3
    capsys.readouterr()
    assert call("train", data, "--out", tmp_path / "again", "--start", scored) == 2
    assert "was trained on the energy score of one step" in " ".join(capsys.readouterr().err.split())
    called = ("segment", data, "--model", scored, "--out", masks, "--split", "test", "--members", "2")
    assert call(*called) == 0
    assert json.loads((masks / "segment.json").read_text())["sampling"]["steps"] == 1
    assert "not learned" not in caplog.text
    assert call(*called, "--steps", "3", "--overwrite") == 0
    assert "trained on the energy score of one step; 3 steps were not learned" in caplog.text
    assert call("doctor", scored) in (0, 1)
    assert "the model was trained on the energy score of one step" in " ".join(capsys.readouterr().out.split())
