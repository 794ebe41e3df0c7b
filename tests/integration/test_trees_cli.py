"""Folders as people have them, through the commands: looked at, planned, trained on, segmented, scored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.makers import SMALL
from tests.program import call
from tests.trees import TREES, write_tree

QUICK = ("train.max_steps=1", "train.warmup_steps=0", "train.val_every=1", "train.snapshots=0")
SETTINGS = [word for change in (*SMALL, *QUICK) for word in ("--set", change)]


@pytest.mark.parametrize("name", TREES)
def test_each_tree_is_looked_at_and_trained_on(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "tree"
    write_tree(root, TREES[name]())
    assert call("data", "check", root, "--out", tmp_path / "shown.png") == 0
    said = capsys.readouterr().out
    assert "layout          tree" in said
    assert " is an image with the mask" in said
    assert "Ready to train." in said
    assert (tmp_path / "shown.png").is_file()
    assert call("train", root, "--out", tmp_path / "run", "--preset", "v2-tiny", "--device", "cpu", *SETTINGS) == 0
    assert " is an image with the mask" in "".join(capsys.readouterr())


def test_a_tree_is_segmented_and_scored(trained: tuple[Path, Path], tmp_path: Path) -> None:
    truth = write_tree(tmp_path / "tree", TREES["in_parts"]())
    assert call("segment", tmp_path / "tree", "--model", trained[0], "--out", tmp_path / "out", "--device", "cpu") == 0
    assert len(list((tmp_path / "out" / "masks").iterdir())) == len(truth)
    assert call("evaluate", tmp_path / "out", tmp_path / "tree", "--out", tmp_path / "scores") == 0
    assert len(json.loads((tmp_path / "scores" / "metrics.json").read_text())["cases"]) == len(truth)


def test_a_plan_tells_how_files_were_understood(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tree(tmp_path, TREES["side_by_side"]())
    assert call("data", "plan", tmp_path, "--device", "cpu", "--memory", "4", "--json") == 0
    assert any(
        "benign, malignant are taken for kinds" in line for line in json.loads(capsys.readouterr().out)["understood"]
    )


def test_a_doubt_is_told_with_the_settings_that_decide(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tree(tmp_path, {f"{i}.png": [f"{i}_mask_1.png", f"{i}_mask_2.png"] for i in range(6)})
    assert call("data", "check", tmp_path) == 1
    said = capsys.readouterr().out
    assert "Each of the 6 images has 2 masks" in said
    assert "images          0" not in said
    assert call("data", "check", tmp_path, "--set", "data.mask_folders=instances") == 0
    assert "6 of 6 images have up to 2 masks" in capsys.readouterr().out
    assert call("data", "check", tmp_path, "--set", "data.mask_folders=raters") == 0
    assert "raters: rater1, rater2" in capsys.readouterr().out
