"""A model is found by name: folders first, then installed packages, then the hub, whose cache is enough offline."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from medsegdiff.errors import CheckpointError, ConfigError, DataError
from medsegdiff.hub.card import Card
from medsegdiff.hub.installed import installed_models
from medsegdiff.hub.place import own_folder, place_of
from medsegdiff.inference.record import read_record
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.models.checkpoint import BEST
from medsegdiff.models.packed import packed_facts
from medsegdiff.server.command import command_of
from medsegdiff.server.run import models_of
from medsegdiff.sharing.bundle import write_bundle
from tests.exported import GOLDEN
from tests.packages import install, packed
from tests.program import call

COMMITS = {"main": "a" * 40, "v1": "b" * 40}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed(tmp_path_factory.mktemp("packed"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of its own."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def installed(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = install(tmp_path / "site", "clinic_models", monkeypatch) / "clinic-disc"
    shutil.copytree(model, place)
    return place


@pytest.fixture
def cache(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, laid by hand, and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "cache" / "models--clinic--disc"
    (place / "refs").mkdir(parents=True)
    for name, commit in COMMITS.items():
        (place / "refs" / name).write_text(commit)
        shutil.copytree(model, place / "snapshots" / commit)
    return place


def test_an_installed_model_segments_by_its_name(installed: Path, here: Path) -> None:
    assert place_of("clinic-disc") == installed
    result = Segmenter.from_pretrained("clinic-disc", device="cpu")(np.eye(20, dtype=np.uint8), members=2)
    assert result.mask.shape == (20, 20)
    (found,) = [one for one in installed_models() if one.name == "clinic-disc"]
    assert found.package == "clinic-models 1.0"


def test_training_begins_with_an_installed_model_unless_it_was_changed(
    installed: Path, here: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("train.max_steps=1", "train.learning_rate=1e-9", "train.weight_decay=0", "train.num_workers=0")
    options = [part for one in (*settings, "train.val_cases=1", "train.val_members=2") for part in ("--set", one)]
    assert call("train", folder, "--out", "tuned", "--start", "clinic-disc", "--device", "cpu", *options) == 0
    before, after = load_file(installed / BEST), load_file(Path("tuned") / BEST)
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)
    assert json.loads(Path("tuned/run.json").read_text())["started_from"]["folder"] == str(installed)
    weights = installed / BEST
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    capsys.readouterr()
    assert call("train", folder, "--out", "again", "--start", "clinic-disc", "--device", "cpu", *options) == 1
    said = capsys.readouterr().err
    assert "model.safetensors" in said
    assert "Reading" not in said
    assert not Path("again/config.json").exists()


def test_training_does_not_begin_with_graphs_and_reads_no_images_to_find_out(
    folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("train", folder, "--out", "tuned", "--start", GOLDEN, "--device", "cpu") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "is an exported run, whose graphs can't be trained. Start with the run that it was made of." in said
    assert "Reading" not in said


def test_a_folder_of_that_name_wins_and_it_is_said(
    installed: Path, model: Path, here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(model, here / "clinic-disc")
    with caplog.at_level(logging.WARNING, "medsegdiff"):
        assert place_of("clinic-disc") == Path("clinic-disc")
        place_of("clinic-disc")
    assert [record.message for record in caplog.records] == [
        f"The folder clinic-disc is taken; the installed model of that name (clinic-models 1.0) is not: {installed}."
    ]


def test_a_name_of_nothing_names_what_there_is(installed: Path, here: Path) -> None:
    with pytest.raises(CheckpointError, match="no installed model of that name; .*Did you mean 'clinic-disc'"):
        place_of("clinic-disk")


def test_two_packages_with_one_name_are_told(
    installed: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(model, install(tmp_path / "other", "other_models", monkeypatch) / "clinic-disc")
    with pytest.raises(ConfigError, match="clinic-models 1.0 and other-models 1.0"):
        place_of("clinic-disc")


def test_a_package_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(install(tmp_path / "site", "gone_models", monkeypatch))
    with pytest.raises(DataError, match="in the package gone_models, which can't be found"):
        installed_models()


def test_a_model_that_came_along_is_not_written_to(installed: Path, here: Path) -> None:
    with pytest.raises(ConfigError, match="medsegdiff pack clinic-disc my-model"):
        own_folder("clinic-disc")
    assert own_folder(here) == here
    assert call("calibrate", "clinic-disc", here) == 2


def test_a_model_of_the_hub_is_found_in_its_cache_by_revision(cache: Path, here: Path) -> None:
    assert place_of("clinic/disc") == cache / "snapshots" / COMMITS["main"]
    assert place_of("clinic/disc", revision="v1") == cache / "snapshots" / COMMITS["v1"]
    assert place_of("clinic/disc@v1") == cache / "snapshots" / COMMITS["v1"]
    segmenter = Segmenter.from_pretrained("clinic/disc", revision="v1", device="cpu")
    assert segmenter.origin is not None
    assert segmenter.origin.folder.endswith(COMMITS["v1"])


def test_a_model_of_the_hub_is_called_as_it_was_packed_not_by_a_commit(
    cache: Path, model: Path, here: Path, tmp_path: Path
) -> None:
    folders = [cache / "snapshots" / COMMITS[revision] for revision in ("main", "v1")]
    assert [one.name for one in models_of([[folders[0]]])] == ["disc"]
    mine = Path(shutil.copytree(model, here / "mine"))
    assert [one.name for one in models_of([[mine]])] == ["mine"]  # by which it is found
    both = models_of([[folders[0]], [folders[1]], [model, folders[0]]])  # revisions that share a name
    assert [one.name for one in both] == [COMMITS["main"], COMMITS["v1"], "disc+disc"]
    Image.fromarray(np.eye(20, dtype=np.uint8)).save("one.png")
    assert call("segment", "one.png", "--model", "clinic/disc", "--out", "masks", "--members", "2") == 0
    record = read_record(Path("masks/segment.json"))
    assert record.models == ("disc",)
    assert "--model disc" in command_of(record, "one.png", "out")
    write_bundle(folders[0], tmp_path / "bundle")
    assert packed_facts(tmp_path / "bundle" / "models")["name"] == "disc"


def test_a_folder_comes_before_the_hub(cache: Path, model: Path, here: Path) -> None:
    shutil.copytree(model, here / "clinic" / "disc")
    assert place_of("clinic/disc") == Path("clinic/disc")
    with pytest.raises(ConfigError, match="is a folder, which has no revisions"):
        place_of("clinic/disc", revision="v1")


def test_a_mistyped_folder_is_not_asked_of_the_hub(cache: Path, here: Path) -> None:
    (here / "clinic").mkdir()
    with pytest.raises(CheckpointError, match=r"there is no such folder.*\(To ask the hub for it: hf:clinic/disc\)"):
        place_of("clinic/disc")
    assert place_of("hf:clinic/disc") == cache / "snapshots" / COMMITS["main"]
    with pytest.raises(ConfigError, match="after 'hf:' comes ORGANISATION/NAME"):
        place_of("hf:disc")


def test_what_the_cache_lacks_is_told_offline(cache: Path, here: Path) -> None:
    with pytest.raises(CheckpointError, match="not in the hub's cache, and .* HF_HUB_OFFLINE"):
        place_of("clinic/other")
    with pytest.raises(CheckpointError, match=r"clinic/disc \(revision v2\)"):
        place_of("clinic/disc@v2")


def test_without_the_library_of_the_hub_it_is_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r"pip install 'medsegdiff\[hub\]'"):
        place_of("clinic/disc")


def test_a_file_of_the_cache_that_was_changed_is_refused(cache: Path, here: Path) -> None:
    weights = cache / "snapshots" / COMMITS["main"] / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match="is not the file that was packed"):
        Segmenter.from_pretrained("clinic/disc")


def test_models_are_listed_and_shown(installed: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("models", "list", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["clinic-disc"] == {
        "name": "clinic-disc",
        "package": "clinic-models 1.0",
        "about": "Segments disc in pictures, with uncertainty, by medsegdiff.",
    }
    assert call("models", "show", "clinic-disc") == 0
    shown = capsys.readouterr().out
    assert "Intended use" in shown
    assert "model.safetensors: SHA-256" in shown
    (installed / "calibration.json").write_text("{}")
    assert call("models", "show", "clinic-disc") == 1


def test_without_models_the_list_says_where_some_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("medsegdiff.hub.installed._entries", tuple)
    assert call("models", "list") == 0
    assert "the package medsegdiff-models brings some" in capsys.readouterr().err


def test_a_card_that_is_none_is_told(tmp_path: Path) -> None:
    assert Card.read(tmp_path) == Card({}, "")
    (tmp_path / "README.md").write_text("---\n- a\n---\n\ntext\n")
    with pytest.raises(DataError, match="no list of keys"):
        Card.read(tmp_path)
    (tmp_path / "README.md").write_text("# Only text\n\nOf one line.\n")
    assert Card.read(tmp_path).summary == "Of one line."


def test_finding_a_model_loads_no_large_library() -> None:
    large = ("torch", "huggingface_hub", "numpy")
    code = f"import sys, medsegdiff.hub.place; print([name for name in {large} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
