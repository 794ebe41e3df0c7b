"""Presets in YAML, ``--set``, the JSON files of runs and results, weights: taken as they are meant, or refused."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import yaml
from hypothesis import strategies as st

from medsegdiff.models.checkpoint import load_model
from tests.fuzz.conftest import Fuzz
from tests.fuzz.promise import SMALL, Ground, at_the_door
from tests.fuzz.strategies import changed, edited, json_texts, names, values
from tests.makers import disc, write_png
from tests.program import call


@st.composite
def presets(draw: st.DrawFn, document: object) -> bytes:
    """Write a changed preset as YAML, or change how it is written."""
    if draw(st.integers(0, 4)):
        return yaml.safe_dump(draw(changed(document)), allow_unicode=draw(st.booleans())).encode("utf-8", "replace")
    return draw(edited(yaml.safe_dump(document).encode()))


def test_presets_mean_what_is_shown_or_are_refused(fuzz: Fuzz) -> None:
    """What is shown of a preset is a preset itself, and means the same."""
    document = {"base": "v2-tiny", **json.loads((fuzz.ground.run / "config.json").read_text())["config"]}

    def check(text: bytes) -> None:
        ground = fuzz.ground
        (ground.data / "mine.yaml").write_bytes(text)
        shown = ground.check("config", "show", ground.data / "mine.yaml", codes=(0, 2))
        if shown.code == 0:
            (ground.data / "shown.yaml").write_text(shown.out)
            assert ground.check("config", "show", ground.data / "shown.yaml", codes=(0,)).out == shown.out

    fuzz.each(presets(document), check, share=0.05)


def test_settings_on_the_command_line_are_taken_or_refused(fuzz: Fuzz) -> None:
    document = json.loads((fuzz.ground.run / "config.json").read_text())["config"]
    keys = [f"{section}.{key}" for section, held in document.items() if isinstance(held, dict) for key in held]

    def check(given: tuple[str, object]) -> None:
        key, value = given
        text = value if isinstance(value, str) else json.dumps(value)
        fuzz.ground.check("config", "show", "v2-tiny", "--set", f"{key}={text}".replace("\0", ""), codes=(0, 2))

    fuzz.ground.clear()
    shown = fuzz.ground.check("config", "show", "v2-tiny", "--set", "data.image_size=48", codes=(0,)).out
    assert yaml.safe_load(shown)["data"]["image_size"] == 48  # what makes sense is taken
    fuzz.each(st.tuples(st.sampled_from(keys) | names(), values()), check, share=0.03)


@pytest.fixture(scope="module")
def results(trained: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``segment`` wrote."""
    run, data = trained
    out = tmp_path_factory.mktemp("results") / "out"
    pictures = [data / "images" / f"case0{i}.png" for i in range(3)]
    assert call("segment", *pictures, "--model", run, "--out", out, *SMALL, "--write", "masks,probability", "-q") == 0
    return out


def test_what_results_tell_of_themselves_is_taken_or_refused(
    fuzz: Fuzz, results: Path, trained: tuple[Path, Path]
) -> None:
    told = json.loads((results / "segment.json").read_text())

    def check(text: bytes) -> None:
        ground = fuzz.ground
        shutil.copytree(results, ground.data / "results")
        shutil.copytree(trained[1] / "masks", ground.data / "masks")
        for number in range(3, 12):
            (ground.data / "masks" / f"case{number:02d}.png").unlink()
        (ground.data / "results" / "segment.json").write_bytes(text)
        before = ("evaluate", ground.data / "results", ground.data / "masks", "--json")
        ended = ground.check(*before, names=("segment.json", "results", "masks"))
        if ended.code == 0:
            assert {case["name"] for case in json.loads(ended.out)["cases"]} == {"case00", "case01", "case02"}

    fuzz.each(json_texts(told), check, share=0.03)


@pytest.mark.parametrize("name", ["config.json", "run.json", "calibration.json", "split.csv", "log.jsonl"])
def test_files_of_a_run_are_taken_or_refused(fuzz: Fuzz, name: str) -> None:
    content = (fuzz.ground.run / name).read_bytes()
    texts = json_texts(json.loads(content)) if name.endswith(".json") else edited(content)

    def check(given: tuple[bytes, str]) -> None:
        text, command = given
        ground = fuzz.ground
        run = copied(ground)
        (run / name).write_bytes(text)
        if command == "segment":
            ground.check("segment", picture(ground), "--model", run, "--out", ground.out, *SMALL)
        else:
            ground.check(command, *(("show", run) if command == "config" else (run,)))

    fuzz.ground.clear()
    assert fuzz.ground.check("config", "show", copied(fuzz.ground), codes=(0,)).out  # what nobody has changed is taken
    fuzz.each(st.tuples(texts, st.sampled_from(("info", "config"))), check, share=0.01)
    fuzz.each(st.tuples(texts, st.sampled_from(("doctor", "segment"))), check, share=0.003)


@st.composite
def weights(draw: st.DrawFn, content: bytes) -> bytes:
    """Change the header of a safetensors file, or bytes of it."""
    if draw(st.booleans()):
        return draw(edited(content))
    length = struct.unpack("<Q", content[:8])[0]
    header = draw(json_texts(json.loads(content[8 : 8 + length])))
    told = draw(st.sampled_from((len(header), len(header), len(header), 0, 2**31, 2**63)))
    return struct.pack("<Q", told) + header + content[8 + length :]


def test_weights_are_those_of_the_file_or_refused(fuzz: Fuzz) -> None:
    content = (fuzz.ground.run / "model.safetensors").read_bytes()

    def check(given: tuple[bytes, str]) -> None:
        text, door = given
        ground = fuzz.ground
        run = copied(ground)
        (run / "model.safetensors").write_bytes(text)
        if door == "segment":
            ground.check("segment", picture(ground), "--model", run, "--out", ground.out, *SMALL, names=("model.safe",))
            return
        with at_the_door("model.safetensors", valid=False):
            model, _ = load_model(run)
            held = safetensors.numpy.load(text)
            for key, value in model.state_dict().items():
                assert np.array_equal(held[key], value.numpy(), equal_nan=True)

    fuzz.each(st.tuples(weights(content), st.just("load")), check, share=0.05)
    fuzz.each(st.tuples(weights(content), st.just("segment")), check, share=0.005)


def copied(ground: Ground) -> Path:
    """Copy what is used of the run."""
    run = ground.data / "run"
    run.mkdir()
    for file in ("config.json", "run.json", "calibration.json", "split.csv", "log.jsonl", "model.safetensors"):
        shutil.copyfile(ground.run / file, run / file)
    return run


def picture(ground: Ground) -> Path:
    inside = disc((12, 10), (5, 5), 3)
    noise = np.random.default_rng(0).integers(0, 99, (12, 10), dtype=np.uint8)
    return write_png(ground.data / "picture.png", noise + inside.astype(np.uint8) * np.uint8(99))
