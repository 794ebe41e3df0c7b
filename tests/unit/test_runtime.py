"""The runtime beside PyTorch: the same members, masks, probabilities and files; and what is no exported run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from medsegdiff import Segmenter, runtime
from medsegdiff.config.cleaning import Cleaning
from medsegdiff.data.placement import Placement
from medsegdiff.data.transforms import to_grid
from medsegdiff.errors import CheckpointError, ConfigError, DataError, MedSegDiffError
from medsegdiff.export.telling import facts_of
from medsegdiff.inference.quality import QualityModel, Range, StructureQuality
from medsegdiff.inference.runs import Trained
from medsegdiff.inference.segmentation import Segmentation
from medsegdiff.io.graphs import Graph
from medsegdiff.metrics.intervals import Stretch
from medsegdiff.metrics.tails import Tail
from medsegdiff.runtime import Exported, Result
from medsegdiff.runtime.__main__ import main
from medsegdiff.runtime.facts import Facts
from medsegdiff.runtime.resize import resized
from medsegdiff.runtime.resize import to_grid as laid
from tests.exported import GOLDEN, SETTINGS, config_of, write_run

pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
MAPS = ("probability", "anchor_probability")
UNCERTAINTY = ("std", "entropy", "disagreement")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    folder = write_run(tmp_path_factory.mktemp("run"), config_of(*SETTINGS))
    return Segmenter.from_pretrained(folder, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def exported() -> Exported:
    return runtime.load(GOLDEN, threads=1)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """Smooth, larger than the grid in one axis and smaller in the other."""
    rows, columns = np.mgrid[:41, :20] / 10
    return (0.5 + 0.25 * np.sin(2 * rows) + 0.25 * np.cos(3 * columns - rows)).astype(np.float32)


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Axes turned and flipped, voxels of three sizes."""
    values = np.random.default_rng(0).normal(size=(9, 7, 4)).cumsum(axis=0).cumsum(axis=1).astype(np.float32)
    affine = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -3], [0, 0, 4.0, 1], [0, 0, 0, 1]])
    path = tmp_path_factory.mktemp("volume") / "v.nii.gz"
    nib.Nifti1Image(values, affine).to_filename(path)
    return path


def assert_same(found: Result, expected: Segmentation) -> None:
    assert len(np.unique(expected.members)) > 1  # there is something to compare
    for name in ("mask", "members", "anchor"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name
    for name in MAPS:
        a, b = getattr(found, name), getattr(expected, name)
        assert (a is None) == (b is None)
        assert a is None or np.allclose(a, b, atol=2e-5), name
    for name in UNCERTAINTY:
        assert np.allclose(getattr(found.uncertainty, name), getattr(expected.uncertainty, name), atol=1e-3), name
    for name in ("sensitivity", "specificity"):
        a, b = getattr(found, name), getattr(expected, name)
        assert (a is None) == (b is None)
        assert a is None or np.allclose(a, b, atol=1e-6), name
    assert found.agreement() == pytest.approx(expected.agreement(), abs=1e-6)
    assert json.dumps(found.sizes(), default=vars) == json.dumps(expected.sizes(), default=vars)
    assert (found.choice is None) == (expected.choice is None)
    assert found.choice is None or found.choice.numbers == expected.choice.numbers


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"fusion": "staple", "seed": 5},
        {"fusion": "majority", "members": 7, "batch_size": 2},
        {"fusion": "mean", "members": 1},
        {"candidates": 6, "members": 3},
        {"mode": "mean"},
    ],
    ids=str,
)
def test_the_runtime_gives_what_pytorch_gives(
    asked: dict[str, Any], run: Segmenter, exported: Exported, picture: np.ndarray
) -> None:
    assert_same(exported.segment(picture, **asked), run(picture, **asked))


@pytest.mark.parametrize("fusion", ["dice", "staple", "mean"])
def test_volumes_too(fusion: str, run: Segmenter, exported: Exported, volume: Path) -> None:
    assert_same(exported.segment(volume, fusion=fusion, members=3), run(volume, fusion=fusion, members=3))


@pytest.mark.parametrize("asked", [{}, {"mode": "mean"}], ids=str)
def test_pairs_with_opposite_noise_are_drawn_where_members_are(
    asked: dict[str, Any], picture: np.ndarray, tmp_path: Path
) -> None:
    """The mean asks each look once, as nothing is drawn there."""
    settings = (*SETTINGS, "sampling.antithetic=true", "sampling.views=4")
    folder = write_run(tmp_path / "run", config_of(*settings))
    run = Trained.load(folder)
    told = facts_of(run, run.config.sampling, grid=(24, 24)).told()
    changed_section(copied(tmp_path), lambda section: section.update(sampling=told["sampling"]))
    found = runtime.load(tmp_path / "copy", threads=1).segment(picture, **asked)
    assert_same(found, Segmenter.from_pretrained(folder, device="cpu", precision="fp32")(picture, **asked))


def calibrated(run: Trained, cleaning: dict[str, Cleaning]) -> QualityModel:
    """What ``medsegdiff calibrate`` might have found of a run."""
    whole = Range(low=0.0, high=1.0)
    structure = StructureQuality(score="agreement", usual=whole, size=whole, doubts=Tail.of([0.0, 0.1, 0.2]))
    return QualityModel(
        cases=40,
        patients=40,
        good=0.8,
        risk=0.1,
        confidence=0.9,
        structures=dict.fromkeys(("left", "right"), structure),
        sampling=run.config.sampling,
        cleaning=cleaning,
        stretch={"left": Stretch(0.9, 1.5, 0.02)},
        weights=run.sha256,
    )


def test_sizes_have_the_intervals_that_calibrate_has_found(picture: np.ndarray, tmp_path: Path) -> None:
    """Of masks that are fused so and not cleaned; else those of training."""
    folder = write_run(tmp_path / "run", config_of(*SETTINGS))
    known = Trained.load(folder)
    seen = []
    for number, cleaning in enumerate(({}, {"left": Cleaning(fill_holes=True)})):
        calibrated(known, cleaning).save(folder)
        run = Segmenter.from_pretrained(folder, device="cpu", precision="fp32")
        told = json.loads(json.dumps(facts_of(Trained.load(folder), known.config.sampling, grid=(24, 24)).told()))
        place = copied(tmp_path / str(number))
        changed_section(place, lambda section, told=told: section.update(told | {"sha256": section["sha256"]}))
        graphs = runtime.load(place, threads=1)
        for fusion in ("dice", "majority"):
            found = graphs.segment(picture, fusion=fusion).sizes()
            expected = run(picture, fusion=fusion, cleaning={}).sizes()
            assert json.dumps(found, default=vars) == json.dumps(expected, default=vars)
            seen.append(json.dumps(found["left"], default=vars))
    assert len({*seen[1:]}) == 1
    assert seen[0] not in seen[1:]


def test_large_pictures_are_the_same_strip_by_strip(
    exported: Exported, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = exported.segment(picture, fusion="majority")
    monkeypatch.setattr("medsegdiff.inference.canvas.STRIP", 4000)
    strips = exported.segment(picture, fusion="majority")
    for name in ("mask", "members", *MAPS):
        assert np.array_equal(getattr(whole, name), getattr(strips, name)), name


def test_graphs_serve_the_segmenter_as_a_network_does(run: Segmenter, picture: np.ndarray) -> None:
    """Two images at once, whose members are in one batch; other numbers of steps than those that were written down."""
    images, asked = [picture, picture[::-1].copy()], {"members": 2, "batch_size": 8, "steps": 5}
    graphs = Segmenter.from_pretrained(GOLDEN, device="cpu")
    for found, expected in zip(graphs(images, **asked), run(images, **asked), strict=True):
        assert np.array_equal(found.mask, expected.mask)
        assert np.array_equal(found.members, expected.members)
        assert np.allclose(found.probability, expected.probability, atol=2e-5)


@pytest.mark.parametrize(("old", "new"), [(7, 7), (24, 60), (60, 24), (33, 32), (5, 1), (1, 5), (100, 7)])
def test_resizing_is_pytorch_s_with_antialiasing(old: int, new: int) -> None:
    values = np.random.default_rng(0).random((2, old, 3)).astype(np.float32)
    expected = F.interpolate(torch.from_numpy(values)[None], size=(new, 3), mode="bilinear", antialias=True)[0].numpy()
    found = resized(values, new, axis=-2)
    assert np.allclose(found, expected, atol=1e-6)
    assert np.array_equal(resized(values, new, axis=-2, part=slice(0, 2)), found[:, :2])
    assert np.allclose(resized(values.swapaxes(1, 2), new, axis=-1), expected.swapaxes(1, 2), atol=1e-6)


def test_an_image_lies_on_the_grid_where_pytorch_lays_it() -> None:
    placement = Placement((31, 50), (13, 20), (16, 24))
    values = np.random.default_rng(1).random((3, 31, 50)).astype(np.float32)
    assert np.allclose(laid(values, placement), to_grid(torch.from_numpy(values), placement).numpy(), atol=1e-6)


def program(*arguments: str | Path) -> int:
    return main([*map(str, arguments)])


def test_the_program_writes_the_files_that_segment_writes(run: Segmenter, picture: np.ndarray, tmp_path: Path) -> None:
    """Masks by class, label maps, probability and entropy; the name is that of the file."""
    image = tmp_path / "a.png"
    Image.fromarray((picture * 255).astype(np.uint8)).save(image)
    run(image).save(tmp_path / "theirs", members=True)
    assert program(GOLDEN, image, "--out", tmp_path / "ours", "--save-members", "--threads", 1) == 0
    ours, theirs = ({p.relative_to(tmp_path / w): p for p in (tmp_path / w).rglob("*.png")} for w in ("ours", "theirs"))
    assert set(theirs) - set(ours) == {p for p in theirs if p.parts[0] in ("anchor", "overlay")}
    for name, path in ours.items():
        a, b = (np.asarray(Image.open(p)).astype(int) for p in (path, theirs[name]))
        assert np.abs(a - b).max() <= (2 if name.parts[0] in ("probability", "uncertainty") else 0), name


def test_the_program_writes_volumes_and_tells_of_them(
    run: Segmenter, volume: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program(GOLDEN, volume, "--out", tmp_path, "--json", "--members", 3) == 0
    told = json.loads(capsys.readouterr().out)
    result = run(volume, members=3)
    assert told["sizes"].keys() == {"left", "right"}
    assert told["sizes"]["left"]["unit"] == "mL"
    assert told["sizes"]["left"]["mean"] == pytest.approx(result.sizes()["left"].mean)
    written = nib.load(tmp_path / "labels" / "v.nii.gz")
    assert np.array_equal(np.asarray(written.dataobj), result.mask)
    assert np.allclose(written.affine, nib.load(volume).affine)


def test_what_can_not_be_read_is_passed_over_and_results_are_not_overwritten(
    picture: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray((picture * 255).astype(np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no picture")
    out = ("--out", tmp_path / "out", "--mode", "mean")
    assert program(GOLDEN, tmp_path / "b.png", *out) == 1
    assert program(GOLDEN, tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png", *out) == 3
    assert "there is no such file" in capsys.readouterr().err
    assert program(GOLDEN, tmp_path / "a.png", *out) == 2
    assert "Add --overwrite" in capsys.readouterr().err
    assert program(GOLDEN, tmp_path / "a.png", *out, "--overwrite") == 0
    for side in ("left", "right"):
        (tmp_path / side).mkdir()
        shutil.copy(tmp_path / "a.png", tmp_path / side)
    apart = ("--out", tmp_path / "apart", "--overwrite")
    assert program(GOLDEN, tmp_path / "left" / "a.png", tmp_path / "right" / "a.png", *apart) == 2
    assert "have one name, and so would their results" in capsys.readouterr().err
    assert not (tmp_path / "apart").exists()
    (tmp_path / "out" / "images").mkdir()
    assert program(GOLDEN, tmp_path / "a.png", *out, "--overwrite") == 2
    assert program(GOLDEN, tmp_path / "a.png") == 2


def test_neither_torch_nor_anything_large_is_loaded(picture: np.ndarray, tmp_path: Path) -> None:
    """In a process of its own: import, and then all of a segmentation that a picture takes."""
    Image.fromarray((picture * 255).astype(np.uint8)).save(tmp_path / "a.png")
    told = (
        "import sys; from medsegdiff import runtime; large = ('torch', 'scipy', 'pydantic', 'nibabel', 'monai');"
        f"from medsegdiff.runtime.__main__ import main; main([{str(GOLDEN)!r}, {str(tmp_path / 'a.png')!r}, '--out', "
        f"{str(tmp_path / 'out')!r}]); print([name for name in large if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_graphs_compare_themselves_with_pytorch(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exported.check() < 1e-4
    assert program(GOLDEN, "--check") == 0
    assert "differ by" in capsys.readouterr().out
    changed = copied(tmp_path)
    with np.load(changed / "selftest.npz") as kept:
        np.savez(changed / "selftest.npz", **{**kept, "x_0": kept["x_0"] + 0.01})
    with pytest.raises(CheckpointError, match=r"they differ by 0\.01"):
        runtime.load(changed).check()
    (changed / "selftest.npz").unlink()
    with pytest.raises(CheckpointError, match="there is no such file"):
        runtime.load(changed).check()


def copied(place: Path) -> Path:
    return Path(shutil.copytree(GOLDEN, place / "copy"))


def changed_section(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    told = json.loads((folder / "config.json").read_text())
    change(told["runtime"])
    (folder / "config.json").write_text(json.dumps(told))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "config.json").unlink(), "holds no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "can't be read"),
        (lambda folder: (folder / "config.json").write_text("[]"), "First: 'medsegdiff export"),
        (lambda folder: changed_section(folder, lambda told: told.update(version=2)), "reads up to 1. Upgrade"),
        (
            lambda folder: changed_section(folder, lambda told: told.pop("table")),
            "is not as 'medsegdiff export' writes",
        ),
        (lambda folder: (folder / "step.onnx").unlink(), "there is no such file"),
        (lambda folder: (folder / "step.onnx").write_text("no graph"), "is no graph that can be opened"),
    ],
)
def test_what_is_no_exported_run_is_refused(change: Callable[[Path], object], words: str, tmp_path: Path) -> None:
    change(folder := copied(tmp_path))
    with pytest.raises(CheckpointError, match=words):
        runtime.load(folder)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"members": 0}, "must be at least 1"),
        ({"fusion": "stapel"}, "Did you mean 'staple'"),
        ({"candidates": 2}, "members are chosen among candidates"),
        ({"mode": "mean", "members": 3}, "mode mean with members"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    asked: dict[str, Any], words: str, exported: Exported, picture: np.ndarray
) -> None:
    with pytest.raises(ConfigError, match=words):
        exported.segment(picture, **asked)


def test_images_that_are_not_like_those_of_the_training_are_refused(exported: Exported, picture: np.ndarray) -> None:
    for image, words in ((np.zeros((5, 5)), "nothing to see"), (np.stack([picture] * 2), "2 channels")):
        with pytest.raises((DataError, MedSegDiffError), match=words):
            exported.segment(image)


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch, volume: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"pip install 'medsegdiff\[onnx\]'"):
        runtime.load(GOLDEN)
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="no provider 'NoSuch'"):
        Graph(GOLDEN / "look.onnx", providers=("NoSuch",))
    monkeypatch.setitem(sys.modules, "medsegdiff.io.image", None)
    with pytest.raises(ConfigError, match="Install it: pip install nibabel"):
        runtime.load(GOLDEN).segment(volume)


def test_facts_come_back_as_they_were_told(exported: Exported) -> None:
    facts = exported.facts
    assert facts.table[0].shared
    assert facts.sampling.mirrors == ((), (-1,))
    assert facts.raters == 3
    assert Facts.read(GOLDEN).told() == facts.told()
    assert json.loads(json.dumps(facts.told())) == json.loads((GOLDEN / "config.json").read_text())["runtime"]
