"""``medsegdiff train --start RUN --distill``: from a trained run to one that samples in one step."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from medsegdiff.models.checkpoint import BEST, load_config, save_config
from medsegdiff.training.run import Run
from tests.makers import small_config
from tests.program import call


def test_a_run_learns_to_sample_in_one_step(
    trained: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    teacher, data = trained
    out = tmp_path / "quick"
    few = ("--set", "train.max_steps=3", "--set", "train.learning_rate=1e-9", "--set", "train.weight_decay=0")
    assert call("train", data, "--out", out, "--start", teacher, "--distill", *few) == 0
    config, taught = load_config(out), load_config(teacher)
    assert (config.sampling.steps, config.sampling.spacing) == (1, "trailing")
    assert config.model == taught.model
    assert config.train.teacher == str(teacher)
    before, after = load_file(teacher / BEST), load_file(out / BEST)
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)  # it began with them
    assert Run(out).lines()[-1]["step"] == 3
    assert call("train", data, "--out", out, "--resume", "--set", "train.max_steps=5") == 0
    assert Run(out).lines()[-1]["step"] == 5
    assert call("train", data, "--out", tmp_path / "again", "--start", out) == 2
    assert f"Start with its teacher, {teacher}" in " ".join(capsys.readouterr().err.split())
    masks = tmp_path / "masks"
    assert call("segment", data, "--model", out, "--out", masks, "--split", "test", "--members", "2") == 0
    assert json.loads((masks / "segment.json").read_text())["sampling"]["steps"] == 1
    assert "distilled" not in caplog.text
    more = ("--members", "2", "--steps", "3", "--overwrite")
    assert call("segment", data, "--model", out, "--out", masks, "--split", "test", *more) == 0
    assert "3 steps were not learned" in caplog.text


def test_a_distilled_run_goes_on_with_its_teacher_wherever_that_lies(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher, data = trained
    shutil.copytree(teacher, tmp_path / "moved")
    few = ("--set", "train.max_steps=1")
    assert call("train", data, "--out", tmp_path / "q", "--start", teacher, "--distill", *few) == 0
    again = ("train", data, "--out", tmp_path / "q", "--resume", "--set", "train.max_steps=2", "--set")
    assert call(*again, "train.teacher=null") == 1
    assert "was trained with other values of train.teacher" in " ".join(capsys.readouterr().err.split())
    assert call(*again, f"train.teacher={tmp_path / 'moved'}") == 0


@pytest.mark.parametrize(
    ("packed", "source"),
    [(True, "theirs, from which it was distilled,"), (False, "the run that it was distilled from")],
)
def test_a_packed_model_names_its_teacher_where_others_can_have_it(
    trained: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    packed: bool,
    source: str,
) -> None:
    teacher, data = tmp_path / "run", trained[1]
    if packed:
        assert call("pack", trained[0], teacher, "--license", "apache-2.0", "--name", "theirs") == 0
    else:
        shutil.copytree(trained[0], teacher)
    little = ("--set", "train.max_steps=1")
    assert call("train", data, "--out", tmp_path / "q", "--start", teacher, "--distill", *little) == 0
    once = tmp_path / "once"
    assert call("pack", tmp_path / "q", once, "--license", "apache-2.0") == 0
    assert load_config(once).train.teacher == ("theirs" if packed else "run")
    monkeypatch.chdir(tmp_path)  # where the teacher's folder has the name that was packed
    assert call("train", data, "--out", tmp_path / "again", "--start", once) == 2
    assert f"Start with {source} and distil what comes of it" in " ".join(capsys.readouterr().err.split())


def test_a_quarter_of_the_teachers_steps_or_time_is_taken(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher, data = trained
    assert load_config(teacher).train.max_steps == 6
    assert call("train", data, "--out", tmp_path / "out", "--start", teacher, "--distill", "--dry-run") == 0
    assert "max_steps: 1\n" in capsys.readouterr().out
    timed = tmp_path / "timed #1: long"
    timed.mkdir()
    save_config(timed, small_config("train.max_minutes=8"))
    assert call("train", data, "--out", tmp_path / "out", "--start", timed, "--distill", "--dry-run") == 0
    told = yaml.safe_load(capsys.readouterr().out)["train"]
    assert (told["max_minutes"], told["teacher"]) == (2.0, str(timed))


def test_without_a_run_there_is_nothing_to_distill(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("train", "phantom", "--out", tmp_path / "run", "--distill") == 2
    assert "--start RUN" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
