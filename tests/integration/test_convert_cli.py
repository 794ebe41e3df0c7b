"""``medsegdiff data convert`` and manifests, as a user types them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.described import make_msd
from tests.makers import write_png
from tests.program import SETS, call


def test_help_gives_an_example() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "medsegdiff", "data", "convert", "--help"], capture_output=True, text=True, check=True
    )
    assert "Example" in shown.stdout
    assert "--only-foreground" in shown.stdout


def test_a_folder_becomes_one_of_nnunet(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "Dataset001_Disc"
    assert call("data", "convert", folder, "--out", out, "--to", "nnunet") == 0
    shown = capsys.readouterr()
    assert shown.out.strip() == str(out)
    assert "Converted 12 of 12 cases." in shown.err
    assert call("data", "check", out, "--out", tmp_path / "look.png") == 0
    assert "layout          nnunet" in capsys.readouterr().out
    assert call("data", "convert", folder, "--out", out, "--to", "nnunet") == 2
    assert "exists and is not empty" in capsys.readouterr().err


def test_a_broken_case_is_named_and_the_exit_code_says_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_png(folder / "masks" / "case02.png", np.zeros((3, 3), np.uint8))
    assert call("data", "convert", folder, tmp_path / "Dataset001_Disc", "--to", "nnunet") == 3
    shown = capsys.readouterr().err
    assert "Left out case02: " in shown
    assert "Converted 11 of 12 cases." in shown


def test_slices_take_a_plane_and_no_other_layout_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_msd(tmp_path / "Task01_Small", count=3)
    options = ("--plane", "sagittal", "--only-foreground", "--set", "data.window=[-100, 300]")
    assert call("data", "convert", source, "-o", tmp_path / "s", "--to", "slices", *options) == 0
    shown = capsys.readouterr().err
    assert "Slices are sagittal." in shown
    assert "CT is shown from -100 to 300 HU" in shown
    assert (tmp_path / "s" / "images" / "v_001_0005.png").exists()
    assert call("data", "convert", source, "-o", tmp_path / "m", "--to", "msd", "--plane", "axial") == 2
    assert "--plane and --only-foreground are for --to slices" in capsys.readouterr().err
    assert call("data", "convert", source, "-o", tmp_path / "m", "--to", "mds") == 2
    assert "Did you mean 'msd'" in capsys.readouterr().err


def test_the_whole_path_from_a_manifest(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Training, segmenting and scoring take the file as they take a folder."""
    table = tmp_path / "cases.csv"
    lines = [f"k{i:02d},data/images/case{i:02d}.png,data/masks/case{i:02d}.png" for i in range(12)]
    table.write_text("\n".join(["id,image,mask", *lines]))
    run, out = tmp_path / "run", tmp_path / "out"
    steps = ("--set", "train.max_steps=2", "--set", "train.val_every=2")
    assert call("data", "check", table, "--out", tmp_path / "look.png") == 0
    assert call("train", table, "--out", run, *SETS, *steps) == 0
    assert call("segment", table, "--model", run, "--out", out) == 0
    assert {path.stem for path in (out / "masks").iterdir()} == {f"k{i:02d}" for i in range(12)}
    capsys.readouterr()
    assert call("evaluate", out, table) == 0
    assert "dice" in capsys.readouterr().out
