"""A checkpoint of the authors' code on the command line: imported, used, trained on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medsegdiff.doctor.weights import examine_weights
from medsegdiff.models.base import build_model
from medsegdiff.models.checkpoint import BEST, STATE, load_config, load_model
from medsegdiff.training.run import Run
from tests.authors import in_their_names
from tests.makers import randomised, small_network, write_png
from tests.program import call

SETTINGS = (
    *("train.num_workers=0", "train.max_steps=1", "train.batch_size=2", "train.learning_rate=1e-9"),
    *("train.val_cases=1", "train.val_members=2", "train.val_steps=2"),
)
LITTLE = ("--device", "cpu", *(part for value in SETTINGS for part in ("--set", value)))


@pytest.fixture(params=["medsegdiff-v1", "release"])
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    config = small_network(request.param, "data.channels=3")
    torch.save(in_their_names(randomised(build_model(config)), config), tmp_path / "emasavedmodel_0.9999_000100.pt")
    return tmp_path / "emasavedmodel_0.9999_000100.pt"


def in_colour(folder: Path, out: Path) -> Path:
    for file in (*folder.glob("images/*"), *folder.glob("masks/*")):
        with Image.open(file) as picture:
            pixels = np.asarray(picture)
        write_png(out / file.relative_to(folder), pixels if "masks" in file.parts else np.stack([pixels] * 3, axis=-1))
    return out


def test_imported_weights_segment_and_can_be_trained_on(
    checkpoint: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out, tuned = tmp_path / "theirs", tmp_path / "masks", tmp_path / "tuned"
    assert call("import", checkpoint, "--out", run, "--heads", 2, "--image-size", 32, "--json") == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["network"] in ("medsegdiff-v1", "release")
    assert "medsegdiff segment" in said.err
    picture = folder / "images" / "case00.png"
    assert call("segment", picture, "--model", run, "--out", out, "--members", 2, "--steps", 3) == 0
    with Image.open(next((out / "masks").iterdir())) as mask:
        assert mask.size == (32, 40)
    assert call("info", run, "--json") == 0
    assert json.loads(capsys.readouterr().out[len(str(out)) + 1 :])["imported"] == checkpoint.name
    assert call("train", folder, "--out", tuned, "--start", run, *LITTLE) == 1
    assert "belongs to another architecture" in capsys.readouterr().err  # grey pictures, and theirs has three channels
    assert not (tuned / "config.json").exists()
    coloured = in_colour(folder, tmp_path / "coloured")
    assert call("train", coloured, "--out", tuned, "--start", run, *LITTLE) == 0
    assert load_config(tuned).model == load_config(run).model
    assert load_config(tuned).data.values == "unit"
    before, after = (dict(load_model(folder)[0].named_parameters()) for folder in (run, tuned))
    assert all(torch.allclose(after[name], value, atol=1e-6) for name, value in before.items())
    picture = coloured / "images" / "case00.png"
    assert call("segment", picture, "--model", tuned, "--out", tmp_path / "t", "--members", 2, "--steps", 3) == 0


def test_an_imported_run_is_resumed_from_step_0_and_then_as_any_other(
    checkpoint: Path,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    run, coloured = tmp_path / "theirs", in_colour(folder, tmp_path / "coloured")
    assert call("import", checkpoint, "--out", run, "--heads", 2, "--image-size", 32) == 0
    files = {file.name: file.read_bytes() for file in run.iterdir()}
    imported = {name: value.clone() for name, value in load_model(run)[0].named_parameters()}
    capsys.readouterr()
    assert call("train", folder, "--out", run, "--resume", *LITTLE) == 1
    assert "belongs to another architecture" in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in run.iterdir()} == files
    assert call("train", coloured, "--out", run, "--resume", *LITTLE) == 0
    told = f"{run} was imported: training begins at step 0, with its weights and a fresh optimizer."
    assert told in capsys.readouterr().err
    assert f"{run} does not tell all that it was trained on: it was imported" in caplog.text
    trained = dict(load_model(run)[0].named_parameters())
    assert all(torch.allclose(trained[name], value, atol=1e-6) for name, value in imported.items())
    assert any(not torch.equal(trained[name], value) for name, value in imported.items())
    record = json.loads((run / "run.json").read_text())
    assert (record["imported"], record["cases"]["train"]) == (checkpoint.name, 9)
    assert call("train", coloured, "--out", run, "--resume", *LITTLE, "--set", "train.max_steps=2", "--json") == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["step"] == 2
    assert "was imported" not in said.err
    assert json.loads((run / "run.json").read_text())["imported"] == checkpoint.name
    picture = coloured / "images" / "case00.png"
    assert call("segment", picture, "--model", run, "--out", tmp_path / "out", "--members", 2, "--steps", 3) == 0
    assert (tmp_path / "out" / "masks" / "case00.png").is_file()


def test_a_checkpoint_that_is_not_theirs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"features.0.weight": torch.zeros(2)}, tmp_path / "other.pt")
    assert call("import", tmp_path / "other.pt", "--out", tmp_path / "run") == 1
    assert "found features.0.weight" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_start_goes_with_neither_preset_nor_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option in (("--preset", "v1"), ("--resume",)):
        assert call("train", "phantom", "--out", tmp_path / "run", "--start", tmp_path, *option) == 2
        assert "leave --preset and --resume out" in " ".join(capsys.readouterr().err.split())


def test_an_imported_run_that_was_trained_and_lost_its_checkpoint_does_not_begin_anew(
    checkpoint: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, coloured = tmp_path / "theirs", in_colour(folder, tmp_path / "coloured")
    assert call("import", checkpoint, "--out", run, "--heads", 2, "--image-size", 32) == 0
    findings, _ = examine_weights(Run(run), load_config(run), "best")
    assert {finding.name: finding.verdict for finding in findings}["file"] == "good"
    assert call("train", coloured, "--out", run, "--resume", *LITTLE) == 0
    (run / STATE).unlink()
    weights = (run / BEST).read_bytes()
    capsys.readouterr()
    assert call("train", coloured, "--out", run, "--resume", *LITTLE) == 1
    assert f"no checkpoint to resume from. Begin another run with its weights: --start {run}" in capsys.readouterr().err
    assert call("train", coloured, "--out", run) == 2
    assert "holds a run already. Choose another --out" in capsys.readouterr().err
    assert (run / BEST).read_bytes() == weights
