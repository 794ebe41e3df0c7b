"""A packed model: the same masks, a card that the hub reads, hashes, and nothing of the machine."""

from __future__ import annotations

import json
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from medsegdiff import registry
from medsegdiff.errors import CheckpointError, ConfigError
from medsegdiff.evaluation.results import Results, Setup
from medsegdiff.evaluation.scores import Mean, Measure, Scores
from medsegdiff.hub.remote import WANTED
from medsegdiff.inference.quality import QualityModel
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.io.hashes import sha256_of
from medsegdiff.models.checkpoint import load_model, save_weights
from medsegdiff.models.packed import packed_facts
from medsegdiff.sharing.bundle import write_bundle
from medsegdiff.sharing.pack import pack
from medsegdiff.training.run import Run
from tests.exported import write_run
from tests.makers import configured
from tests.packages import ABOUT, tiny_run
from tests.program import call

IMAGE = np.random.default_rng(0).integers(0, 255, (24, 24), dtype=np.uint8)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tiny_run(tmp_path / "run")
    (folder / "run.json").write_text(
        json.dumps({"cases": {"train": 8, "val": 2, "test": 3}, "split_sha256": "c0ffee", "versions": {"torch": "2.9"}})
    )
    (folder / "split.csv").write_text("id,split\nMeier,train\n")
    return folder


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    """What an evaluation of six cases of three patients would have written."""
    groups = {f"c{number}": f"p{number // 2}" for number in range(6)}
    summary = {Measure("dice"): Mean(0.8125, (0.75, 0.875)), Measure("size_covered"): Mean(0.9, None)}
    Results(Scores(groups, {}), summary, Setup(groups=3, unit="px")).save(tmp_path / "scores")
    return tmp_path / "scores"


def masks_of(folder: Path) -> np.ndarray:
    return Segmenter.from_pretrained(folder, device="cpu", precision="fp32")(IMAGE, seed=3).members


def test_a_packed_model_segments_as_the_run_does(run: Path, tmp_path: Path) -> None:
    done = pack(run, tmp_path / "packed", ABOUT)
    assert sorted(done.bytes) == ["LICENSE", "README.md", "calibration.json", "config.json", "model.safetensors"]
    assert np.array_equal(masks_of(tmp_path / "packed"), masks_of(run))
    assert "Apache License" in (tmp_path / "packed" / "LICENSE").read_text()


def test_rounded_weights_take_half_and_differ_by_rounding_alone(run: Path, tmp_path: Path) -> None:
    pack(run, tmp_path / "half", ABOUT, precision="fp16")
    before, after = (load_file(folder / "model.safetensors") for folder in (run, tmp_path / "half"))
    assert all(torch.equal(after[name], value.half()) for name, value in before.items())
    size = {folder: (folder / "model.safetensors").stat().st_size for folder in (run, tmp_path / "half")}
    assert size[tmp_path / "half"] < 0.75 * size[run]  # the names of a tiny network take room too
    model, _ = load_model(tmp_path / "half")
    assert {value.dtype for value in model.parameters()} == {torch.float32}


def test_weights_of_eight_bits_are_off_by_half_a_scale_at_most(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medsegdiff.models.quantization.LARGE", 64)  # the network is tiny
    before = load_file(run / "model.safetensors")
    name = next(name for name, value in before.items() if value.ndim > 1 and value.numel() >= 64)
    before[name][0] *= 1e-7  # a channel of small weights keeps its digits
    save_weights(run / "model.safetensors", before)
    packed = pack(run, tmp_path / "bits", ABOUT, precision="int8").folder
    after = load_model(packed)[0].state_dict()
    stored = load_file(packed / "model.safetensors")
    large = [name for name, value in stored.items() if value.dtype == torch.int8]
    assert len(large) > 5
    for name in large:
        largest = before[name].flatten(1).abs().amax(dim=1)
        off = (after[name] - before[name]).flatten(1).abs().amax(dim=1)
        assert (off <= largest * (0.5 / 127 + 1e-6)).all(), name
    again = pack(packed, tmp_path / "again", ABOUT, precision="int8").folder
    assert (again / "model.safetensors").read_bytes() == (packed / "model.safetensors").read_bytes()
    half = pack(packed, tmp_path / "half", ABOUT, precision="fp16").folder
    assert all(torch.equal(value, after[name].half()) for name, value in load_file(half / "model.safetensors").items())


def test_weights_that_half_precision_can_not_hold_are_refused(run: Path, tmp_path: Path) -> None:
    state = load_file(run / "model.safetensors")
    name = next(iter(state))
    save_weights(run / "model.safetensors", {**state, name: state[name] * 0 + 1e6})
    with pytest.raises(CheckpointError, match=f"{name} has values that torch.float16 can't hold"):
        pack(run, tmp_path / "half", ABOUT, precision="fp16")
    assert pack(run, tmp_path / "half", ABOUT, precision="bf16", overwrite=True).bytes


def test_the_card_is_read_by_the_hub_and_its_numbers_are_those_given(run: Path, scores: Path, tmp_path: Path) -> None:
    pack(run, tmp_path / "packed", ABOUT, scores=scores)
    card = ModelCard.load(tmp_path / "packed" / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "medsegdiff"
    (dice,) = [result for result in card.data.eval_results if result.metric_type == "dice"]
    assert dice.metric_value == 0.8125
    assert dice.dataset_name == "Drawn discs"
    assert "| Dice of the fused mask | 0.8125 [0.7500, 0.8750] |" in card.text
    assert "6 images of 3 patients; means and intervals are over patients" in card.text
    assert "Cases: 8 train, 2 val, 3 test; SHA-256 of the split: `c0ffee`" in card.text
    assert "Not calibrated: nothing is predicted of a mask." in card.text
    assert "Data: CC0 1.0." in card.text
    assert card.validate is not None


def test_what_nobody_told_is_named_as_such(run: Path, tmp_path: Path) -> None:
    (run / "run.json").unlink()
    pack(run, tmp_path / "packed", replace(ABOUT, data="", data_license=""))
    text = (tmp_path / "packed" / "README.md").read_text()
    assert text.count("not told by who packed this") == 2
    assert "Split: not told by the run." in text
    assert "None was given when this was packed." in text


def test_nothing_of_the_machine_and_no_name_of_a_case_comes_along(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_loaded", dict(registry._loaded))
    told = json.loads((run / "config.json").read_text())
    told["config"]["train"]["teacher"] = str(tmp_path / "secret" / "teacher")
    told["config"]["data"]["cache_dir"] = str(tmp_path / "secret")
    plain = tmp_path / "secret" / "plain.py"
    plain.parent.mkdir()
    plain.write_text("")
    registry.load_plugin(plain)
    told["plugins"] = [{"file": str(plain), "sha256": sha256_of(plain)}]
    (run / "config.json").write_text(json.dumps(told))
    pack(run, tmp_path / "packed", ABOUT)
    text = "".join(path.read_text() for path in (tmp_path / "packed").iterdir() if path.suffix in (".json", ".md"))
    assert str(tmp_path) not in text
    assert "Meier" not in text
    assert '"teacher": "teacher"' in text
    assert '"file": "plain.py"' in text
    pack(run, tmp_path / "packed", ABOUT, with_split=True, overwrite=True)
    assert "Meier" in (tmp_path / "packed" / "split.csv").read_text()


def test_with_the_split_comes_what_the_runs_were_trained_on_that_it_began_with(run: Path, tmp_path: Path) -> None:
    (run / "seen.csv").write_text("id,split\nSchulze,train\n")
    pack(run, tmp_path / "packed", ABOUT)
    assert not (tmp_path / "packed" / "seen.csv").exists()
    packed = pack(run, tmp_path / "packed", ABOUT, with_split=True, overwrite=True).folder
    assert Run(packed).trained == {"Meier", "Schulze"}
    assert set(packed_facts(packed)["files"]) >= {"split.csv", "seen.csv"}
    assert any(fnmatch("seen.csv", pattern) for pattern in WANTED)
    again = pack(packed, tmp_path / "again", ABOUT, with_split=True).folder
    assert Run(again).trained == {"Meier", "Schulze"}
    (packed / "seen.csv").unlink()
    with pytest.raises(CheckpointError, match=r"seen\.csv: is missing"):
        load_model(packed)


def test_files_that_training_began_with_keep_their_last_names(tmp_path: Path) -> None:
    file = tmp_path / "secret" / "resnet.pth"
    run = write_run(tmp_path / "run", configured("beal", "binary", f"model.weights={file}"))
    text = (pack(run, tmp_path / "packed", ABOUT).folder / "config.json").read_text()
    assert str(tmp_path) not in text
    assert '"weights": "resnet.pth"' in text


@pytest.mark.parametrize("name", ["model.safetensors", "calibration.json"])
def test_a_file_that_was_changed_or_removed_is_refused(run: Path, tmp_path: Path, name: str) -> None:
    file = pack(run, tmp_path / "packed", ABOUT).folder / name
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(CheckpointError, match=f"{name}: is not the file that was packed"):
        load_model(file.parent)
    file.unlink()
    with pytest.raises(CheckpointError, match=f"{name}: is missing"):
        load_model(file.parent)


def test_a_packed_model_is_packed_again_with_what_is_known_of_it(run: Path, scores: Path, tmp_path: Path) -> None:
    first = pack(run, tmp_path / "first", ABOUT, precision="fp16").folder
    second = pack(first, tmp_path / "second", ABOUT, precision="fp16", scores=scores).folder
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
    text = (second / "README.md").read_text()
    assert "8 train, 2 val, 3 test" in text
    assert "0.8125" in text


def test_other_folders_are_left_alone(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds calibration\.json, config\.json.*'medsegdiff pack' did not write"):
        pack(run, run, ABOUT, overwrite=True)
    pack(run, tmp_path / "packed", ABOUT)
    with pytest.raises(ConfigError, match="Add --overwrite"):
        pack(run, tmp_path / "packed", ABOUT)
    with pytest.raises(ConfigError, match="text of the licence cc-by-4.0 is not at hand"):
        pack(run, tmp_path / "new", replace(ABOUT, license="cc-by-4.0"))
    assert not (tmp_path / "new").exists()


def test_a_packed_model_is_packed_into_its_own_folder_as_it_is(run: Path, tmp_path: Path) -> None:
    """That needs no licence: it has one. What is refused on the way takes nothing with it."""
    licence, mine = tmp_path / "text", tmp_path / "mine"
    licence.write_text("Do as you like.")
    pack(run, mine, replace(ABOUT, license="cc0-1.0"), precision="int8", license_file=licence)
    before = {path.name: path.read_bytes() for path in mine.iterdir()}
    assert call("pack", mine, mine) == 2
    assert call("pack", mine, mine, "--overwrite", "--with-split") == 2
    assert {path.name: path.read_bytes() for path in mine.iterdir()} == before
    assert call("pack", mine, mine, "--overwrite", "--name", "disc") == 0
    after = {path.name: path.read_bytes() for path in mine.iterdir()}
    assert after.keys() == before.keys()
    assert all(after[name] == before[name] for name in ("LICENSE", "model.safetensors", "calibration.json"))
    assert "int8" in after["README.md"].decode()
    load_model(mine)
    assert call("pack", run, tmp_path / "new") == 2


def test_a_model_that_is_packed_anew_under_another_licence_names_the_first(run: Path, tmp_path: Path) -> None:
    licence, said = tmp_path / "text", list[str]()
    licence.write_text("For no money.")
    theirs = pack(run, tmp_path / "x", replace(ABOUT, name="theirs", license="cc-by-nc-4.0"), license_file=licence)
    write_bundle(theirs.folder, tmp_path / "bundle")
    for number, given in enumerate((theirs.folder, tmp_path / "bundle" / "models")):
        ours = pack(given, tmp_path / str(number), ABOUT, noted=said.append).folder
        assert "weights of theirs, whose licence is cc-by-nc-4.0; this one is apache-2.0" in said.pop()
        again = pack(ours, tmp_path / f"{number}-again", ABOUT).folder
        assert "Began with the weights of theirs; their licence: cc-by-nc-4.0." in (again / "README.md").read_text()


def test_the_command_packs(run: Path, scores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    licence = tmp_path / "text"
    licence.write_text("Do as you like.")
    told = ("--license", "cc0-1.0", "--license-file", licence, "--scores", scores, "--precision", "fp16", "--json")
    assert call("pack", run, tmp_path / "packed", *told) == 0
    assert json.loads(capsys.readouterr().out)["bytes"]["LICENSE"] == 15
    assert call("pack", run, tmp_path / "more", "--license", "mit") == 2


def test_calibrating_a_packed_model_keeps_its_hashes_true(run: Path, tmp_path: Path) -> None:
    folder = pack(run, tmp_path / "packed", ABOUT).folder
    learned = QualityModel.model_validate(json.loads(QUALITY))
    learned.model_copy(update={"weights": (sha256_of(folder / "model.safetensors"),)}).save(folder)
    load_model(folder)
    (folder / "quality.json").write_text(QUALITY)
    with pytest.raises(CheckpointError, match=r"quality\.json: is not the file that was packed"):
        load_model(folder)


def test_what_was_calibrated_comes_along_and_the_card_says_of_which_weights(run: Path, tmp_path: Path) -> None:
    learned = QualityModel.model_validate(json.loads(QUALITY))
    learned.model_copy(update={"weights": (sha256_of(run / "model.safetensors"),)}).save(run)
    half = pack(run, tmp_path / "half", ABOUT, precision="fp16").folder
    kept = QualityModel.read(half / "quality.json")
    assert kept is not None
    assert kept.weights == (sha256_of(half / "model.safetensors"),)
    text = (half / "README.md").read_text()
    assert "12 patients: cases are ranked, and nothing is predicted" in text
    assert "segmented with the weights before these were rounded" in text
    assert "AURC, lower is better: confidence 0.1000, random 0.2000, oracle 0.0500" in text
    again = pack(half, tmp_path / "again", ABOUT, precision="fp16").folder
    assert "before these were rounded" not in (again / "README.md").read_text()


QUALITY = json.dumps(
    {
        "cases": 20,
        "patients": 12,
        "good": 0.8,
        "risk": 0.05,
        "confidence": 0.9,
        "structures": {
            "disc": {
                "score": "confidence",
                "usual": {"low": 0.1, "high": 0.9},
                "doubts": {"values": [0.1, 0.2], "total": 2},
                "size": {"low": 0.1, "high": 0.5},
                "aurc": {"confidence": 0.1, "random": 0.2, "oracle": 0.05},
            }
        },
        "sampling": {},
    }
)
"""What 'medsegdiff calibrate' writes, of few patients."""
