"""`medsegdiff export`: a run becomes graphs that segment as it does; what can't be exported is told."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from PIL import Image

from medsegdiff import Segmenter, runtime
from medsegdiff.config.load import load_preset
from medsegdiff.config.spec import assumed
from medsegdiff.errors import CheckpointError, ConfigError
from medsegdiff.export.folder import export_run
from medsegdiff.export.sample import Sample, mean_of
from medsegdiff.export.telling import facts_of
from medsegdiff.inference.runs import Trained
from tests.exported import GOLDEN, SETTINGS, TINY, config_of, write_run
from tests.program import call

pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
SUPPLIED = ("look", "step", "mean")
PAPER = (
    *TINY,
    "model.condition_patch=null",
    "model.diffusion_patch=null",
    "model.condition_widths=[8, 8]",
    "model.detail_channels=0",
    "data.resize=none",
    "diffusion.target=eps",
    "sampling.sampler=ddpm",
    "sampling.spacing=trailing",
    "sampling.fusion=staple",
)
"""A tiny network with the paper's recipe: it predicts noise, and its sampler adds some at each step."""


@pytest.fixture(autouse=True, scope="module")
def unchecked_shapes() -> Iterator[None]:
    """Tracing knows some lengths as symbols: comparing them with others, as checks of shapes do, would fix them."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("paper") / "run", config_of(*PAPER))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("small") / "run", config_of(*SETTINGS))


@pytest.fixture(scope="module")
def exported(paper: Path) -> Path:
    out = paper.parent / "graphs"
    assert call("export", paper, out, "--to", "onnx", "--size", "16x24", "--steps", 3, "--json") == 0
    return out


def picture(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width] / 8
    return (0.5 + 0.25 * np.sin(2 * rows) + 0.25 * np.cos(3 * columns - rows)).astype(np.float32)


def test_the_paper_s_recipe_is_exported(paper: Path, exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Noise at each step, STAPLE; images as they are, of one size; numbers of steps are those that were asked for."""
    assert sorted(path.name for path in exported.iterdir()) == [
        "calibration.json",
        "config.json",
        "look.onnx",
        "selftest.npz",
        "step.onnx",
    ]
    run, graphs = Segmenter.from_pretrained(paper, device="cpu", precision="fp32"), runtime.load(exported, threads=1)
    image = picture(16, 24)
    found, expected = graphs.segment(image, seed=2), run(image, seed=2, steps=3)
    assert len(graphs.facts.table) == 3
    assert graphs.facts.table[0].noise > 0
    assert np.array_equal(found.members, expected.members)
    assert np.array_equal(found.mask, expected.mask)
    assert np.allclose(found.sensitivity, expected.sensitivity, atol=1e-6)
    for segmenter in (graphs.segment, Segmenter.from_pretrained(exported, device="cpu")):
        with pytest.raises(ValueError, match="the graphs take 16×24"):
            segmenter(picture(32, 24))
    with pytest.raises(ConfigError, match="predicts noise"):
        graphs.segment(image, mode="mean")


def test_a_folder_of_results_is_that_of_the_run(exported: Path, tmp_path: Path) -> None:
    Image.fromarray((picture(16, 24) * 255).astype(np.uint8)).save(tmp_path / "a.png")
    assert call("segment", tmp_path / "a.png", "--model", exported, "--out", tmp_path / "out", "--members", 2) == 0
    told = json.loads((tmp_path / "out" / "segment.json").read_text())
    assert told["runs"][0]["folder"] == str(exported)
    assert len(told["runs"][0]["sha256"]) == 2
    assert (tmp_path / "out" / "masks" / "a.png").is_file()


def test_graphs_are_small_and_tell_nobody_where_they_were_made(exported: Path) -> None:
    for name in ("look.onnx", "step.onnx"):
        content = (exported / name).read_bytes()
        assert b"medsegdiff/" not in content
        assert len(content) < 200_000


def test_programs_of_torch_export_compute_what_the_network_does(tmp_path: Path) -> None:
    """Of a network without noise: its mask is there at once, and it is its only member."""
    sizes = ("model.condition_widths=[8, 8]", "model.num_blocks=1", "data.image_size=8")
    config = assumed(load_preset("anchor-tiny", sizes))
    run = Trained.load(write_run(tmp_path / "run", config))
    done = export_run(tmp_path / "run", tmp_path / "out", to="torch-export", noted=print)
    assert done.apart is None
    assert (done.facts.sampling.mode, len(done.facts.table)) == ("mean", 1)
    image = torch.rand(3, 3, 8, 8)
    look, step, mean = (torch.export.load(tmp_path / "out" / f"{name}.pt2").module() for name in SUPPLIED)
    with torch.no_grad():
        logits = run.model.condition(image).logits
        anchor, again, pooled = look(image)
        torch.testing.assert_close(anchor, logits.sigmoid())
        one, x_t = torch.ones(1), torch.zeros(4, 1, 8, 8)
        torch.testing.assert_close(
            step(x_t, one, one, one, again[:1], pooled[:1])[0], (2 * logits.sigmoid() - 1)[:1].expand_as(x_t)
        )
        expected = run.calibration.mixture(anchor[:, 0], anchor[:, 0], exclusive=False)
        torch.testing.assert_close(mean(image)[:, 0], expected)


def test_the_mean_at_once_is_the_probability_of_mode_mean(small: Path) -> None:
    """The graph's noise is a constant; with that of the run, it gives what the run gives."""
    run = Trained.load(small)
    facts = facts_of(run, run.config.sampling, grid=(24, 24))
    sample = Sample.of(facts)
    mean = mean_of(run, facts, sample)
    image = picture(24, 24)
    segmenter = Segmenter.from_pretrained(small, device="cpu", precision="fp32")
    result = segmenter(image, mode="mean", views=1, seed=3)
    from medsegdiff.data.transforms import prepare
    from medsegdiff.diffusion.noise import MemberNoise
    from medsegdiff.inference.inputs import read_case
    from medsegdiff.io.arrays import image_key

    case = read_case(image)
    mean.noise.copy_(MemberNoise(3, [(image_key(case.image), 0)], (3, 24, 24), device=torch.device("cpu"))())
    with torch.no_grad():
        found = mean(prepare(case, run.config, stride=run.model.stride).image[None])[0]
    assert np.allclose(found.numpy(), result.probability, atol=1e-4)


def test_what_can_not_be_exported_is_told(paper: Path, small: Path, tmp_path: Path) -> None:
    for asked, words in (
        ({}, "Give it: --size"),
        ({"size": (15, 16)}, "multiples of 4"),
    ):
        with pytest.raises(ConfigError, match=words):
            export_run(paper, tmp_path / "out", **asked)
    with pytest.raises(ConfigError, match="Leave it out"):
        export_run(small, tmp_path / "out", size=(24, 24))
    with pytest.raises(ConfigError, match="exported run already"):
        export_run(GOLDEN, tmp_path / "out")
    with pytest.raises(CheckpointError, match="one set of weights"):
        export_run(GOLDEN, tmp_path / "out", weights="last")
    assert not (tmp_path / "out").exists()


def test_snapshots_and_learned_variances_are_told(small: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(small, tmp_path / "run"))
    told = json.loads((run / "config.json").read_text())
    told["config"]["train"]["snapshots"] = 1
    (run / "config.json").write_text(json.dumps(told))
    shutil.copyfile(run / "model.safetensors", run / "snapshot-1.safetensors")
    with pytest.raises(ConfigError, match=r"The run has 1 snapshots"):
        export_run(run, tmp_path / "out")


def test_only_an_export_may_be_replaced(paper: Path, exported: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    for out, words in (
        (tmp_path, "which no export wrote"),
        (paper, "no export wrote"),
        (exported, "Add --overwrite"),
        (tmp_path / "mine.txt", "is a file"),
    ):
        with pytest.raises(ConfigError, match=words):
            export_run(paper, out, size=(16, 24))
    assert call("export", paper, tmp_path / "out", "--size", "wide") == 2


def test_an_export_that_fails_leaves_the_one_before(
    paper: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path(shutil.copytree(exported, tmp_path / "out"))
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("medsegdiff.export.folder.write_trial", full)
        with pytest.raises(OSError, match="What was there before is unchanged"):
            export_run(paper, out, size=(16, 24), steps=2, overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    export_run(paper, out, size=(16, 24), steps=2, overwrite=True)
    assert len(runtime.load(out).facts.table) == 2


def test_a_network_that_no_library_writes_is_named(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such operator\nmore")

    monkeypatch.setattr(torch.export, "export", fails)
    with pytest.raises(CheckpointError, match="medsegdiff-v2 can't be written as a graph: no such operator Networks"):
        export_run(small, tmp_path / "out", to="torch-export")
    assert not (tmp_path / "out").exists()
