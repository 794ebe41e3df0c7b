"""``medsegdiff benchmark speed`` and ``train``: what they print, for people and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from medsegdiff.config.load import preset_names
from tests.makers import small_config
from tests.program import call

STAGES = ["read", "condition", "tables", "steps", "fuse", "other", "write"]


@pytest.fixture
def preset(tmp_path: Path) -> Path:
    """A small network in a YAML file."""
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(small_config().asked.model_dump(mode="json")), encoding="utf-8")
    return path


def test_speed_tells_what_each_stage_costs_beside_the_reference(
    preset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("benchmark", "speed", preset, "--size", "32", "--members", "4", "--repeats", "1", "--json") == 0
    shown = capsys.readouterr()
    told = json.loads(shown.out)
    assert told["machine"]["threads"] == torch.get_num_threads()
    assert told["conditions"] == {"size": 32, "members": 4, "repeats": 1}
    reference, found = told["reference"], told["presets"][str(preset)]
    assert reference["gflop"] == pytest.approx(20 * reference["gflop_per_forward"])
    assert reference["precision"] in ("fp32", "bf16")
    assert (found["steps"], found["steps_made"], found["extrapolated"]) == (3, 3, False)
    assert list(found["stages"]) == STAGES
    times = {stage: took["seconds"] for stage, took in found["stages"].items()}
    assert all(seconds > 0 for stage, seconds in times.items() if stage != "other")  # what is left may be nothing
    assert times["other"] >= 0
    assert found["seconds"] == pytest.approx(sum(times[stage] for stage in STAGES[1:-1]))
    assert found["ratio"] == pytest.approx(found["seconds"] / reference["seconds"])
    assert found["images_per_second"] == pytest.approx(1 / (sum(times.values()) - times["tables"]))
    counted = [took["gflop"] for took in found["stages"].values() if "gflop" in took]
    assert found["gflop"] == pytest.approx(sum(counted))
    assert len(found["stages"]["steps"]["each"]) == 3
    assert "Measuring in turn, rounds: 1" in shown.err


def test_steps_that_take_too_long_are_extrapolated_and_it_is_said(
    preset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["benchmark", "speed", preset, "--size", "32", "--steps", "50", "--repeats", "1", "--patience", "0.1"]
    assert call(*asked, "--json", "--precision", "fp32") == 0
    told = json.loads(capsys.readouterr().out)
    found = told["presets"][str(preset)]
    steps = found["stages"]["steps"]
    assert found["extrapolated"]
    assert found["steps"] == 50
    assert 2 <= found["steps_made"] == len(steps["each"]) < 50
    later = steps["each"][1:]
    missing = (50 - found["steps_made"]) * sum(later) / len(later)
    assert steps["seconds"] == pytest.approx(sum(steps["each"]) + missing)
    assert (told["reference"]["precision"], found["precision"]) == ("fp32", "fp32")


@pytest.mark.parametrize("steps", ["1", "5"])
def test_few_steps_of_a_measurement_are_no_reason_to_warn(
    steps: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    preset = tmp_path / "regions.yaml"
    config = small_config("sampling.spacing=regions", "sampling.steps=5")
    preset.write_text(yaml.safe_dump(config.asked.model_dump(mode="json")), encoding="utf-8")
    asked = ["benchmark", "speed", preset, "--size", "32", "--members", "2", "--repeats", "1", "--steps", steps]
    assert call(*asked) == 0
    assert "more" not in caplog.text + capsys.readouterr().err  # "Take more steps.", "Take 4 or more."


def test_speed_is_shown_as_a_table(preset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("benchmark", "speed", preset, "--size", "32", "--members", "2", "--repeats", "1", "--steps", "2") == 0
    shown = " ".join(capsys.readouterr().out.split())
    for words in (*STAGES, "2 members × 2 steps", "20 forward passes", "threads", "the seconds of the reference"):
        assert words in shown


def test_training_tells_its_speed_and_what_is_lost_waiting(preset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["benchmark", "train", preset, "--size", "32", "--batch", "3", "--steps", "2"]
    assert call(*asked, "--json") == 0
    found = json.loads(capsys.readouterr().out)["presets"][str(preset)]
    assert (found["size"], found["batch"], found["steps"], found["precision"]) == (32, 3, 2, "fp32")
    assert 0 < found["waiting_share"] < 1
    assert 0.3 < found["images_per_second"] * found["step_seconds"] / 3 < 2
    assert found["estimated_memory_gb"] > 0
    assert call(*asked) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for words in ("32 px", "waiting for data", "peak memory", "threads"):
        assert words in shown


@pytest.mark.parametrize("which", ["speed", "train"])
@pytest.mark.parametrize(
    ("options", "words"), [(["v3"], "No preset 'v3'"), (["v2-tiny", "--device", "tpu9"], "can't be used")]
)
def test_what_is_wrong_is_said_before_anything_is_measured(
    which: str, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("benchmark", which, *options) == 2
    shown = capsys.readouterr()
    assert words in " ".join(shown.err.split())
    assert "Warming up" not in shown.err


def test_presets_are_named_by_default() -> None:
    from medsegdiff.benchmark.speed import default_presets

    assert "v2" in default_presets()
    assert ("v2-fast" in default_presets()) == ("v2-fast" in preset_names())
