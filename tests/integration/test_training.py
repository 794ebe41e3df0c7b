"""Training: resumed equals uninterrupted, averages, guards, stops, checkpoints that survive."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from medsegdiff.checkpoint import BEST, LAST, load_config
from medsegdiff.errors import CheckpointError, ConfigError, DataError, TrainingError
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.training import state, trainer
from medsegdiff.training.optimisation import learning_rate, moving_average
from medsegdiff.training.run import Run
from medsegdiff.training.train import train
from tests.makers import small_config, write_png

STEPS = ("train.max_steps=6", "train.val_every=3", "train.save_every=3")


def weights(run: Path, file: str = LAST) -> dict[str, torch.Tensor]:
    return load_file(run / file)


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert set(a) == set(b)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_holds_what_it_takes_to_use_and_repeat_it(trained: tuple[Path, Path]) -> None:
    run, _ = trained
    expected = {BEST, LAST, "config.json", "run.json", "split.csv", "log.jsonl", "curves.png", "state", "validation"}
    assert {p.name for p in run.iterdir()} == expected
    described = json.loads((run / "run.json").read_text())
    assert described["cases"] == {"train": 9, "val": 1, "test": 2}
    assert set(described["versions"]) >= {"torch", "monai", "medsegdiff"}
    config = load_config(run)
    assert (config.data.task, config.data.channels, config.data.classes) == ("binary", 1, ("foreground",))
    lines = Run(run).lines()
    assert [line["step"] for line in lines if "dice" in line] == [3, 6]
    assert all(np.isfinite(v) for line in lines for v in line.values())
    assert len(list((run / "validation").glob("*.png"))) == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_resumed_equals_uninterrupted(folder: Path, tmp_path: Path, workers: int) -> None:
    """Stop in the middle, go on in a new process's state: weights, average, optimizer and log are the same bits."""
    extra = (f"train.num_workers={workers}", "train.accumulate=2")
    train(folder, tmp_path / "whole", small_config(*STEPS, *extra))
    train(
        folder, tmp_path / "parts", small_config("train.max_steps=6", "train.val_every=3", "train.save_every=2", *extra)
    )
    shutil.rmtree(tmp_path / "parts")

    original = trainer.Trainer._reason_to_stop

    def stop_at_4(self: trainer.Trainer, asked: trainer.StopRequest) -> str:
        return "interrupted" if self.progress.step == 4 else original(self, asked)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.Trainer, "_reason_to_stop", stop_at_4)
        outcome = train(folder, tmp_path / "parts", small_config(*STEPS, *extra))
    assert (outcome.reason, outcome.step) == ("interrupted", 4)
    torch.manual_seed(12345)  # nothing may depend on what the process drew before
    outcome = train(folder, tmp_path / "parts", small_config(*STEPS, *extra), resume=True)
    assert (outcome.reason, outcome.step) == ("finished", 6)
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert_equal(weights(tmp_path / "whole", BEST), weights(tmp_path / "parts", BEST))
    last = [sorted((tmp_path / run / "state").iterdir())[-1] for run in ("whole", "parts")]
    assert_equal(*(load_file(folder / "model.safetensors") for folder in last))
    a, b = (torch.load(folder / "optimizer.bin", weights_only=True)["state"] for folder in last)
    assert all(torch.equal(a[i][key], b[i][key]) for i in a for key in a[i])
    logs = [Run(tmp_path / run).lines() for run in ("whole", "parts")]
    for x, y in zip(*logs, strict=True):
        assert {k: v for k, v in x.items() if k != "images_per_s"} == {
            k: v for k, v in y.items() if k != "images_per_s"
        }


def test_average_is_not_the_raw_weights_and_is_what_samples(trained: tuple[Path, Path]) -> None:
    run, _ = trained
    newest = sorted((run / "state").iterdir())[-1]
    raw, average = load_file(newest / "model.safetensors"), load_file(newest / "average.safetensors")
    assert any(not torch.equal(raw[name], average[name]) for name in raw)
    assert_equal(average, weights(run))
    assert_equal(dict(Segmenter.from_pretrained(run, weights="last", device="cpu").model.state_dict()), average)


def test_moving_average_by_hand() -> None:
    average, update = [torch.tensor([0.0])], moving_average(0.9)
    for count, value in enumerate([1.0, 1.0, 1.0]):
        update(average, [torch.tensor([value])], count)
    expected = 0.0
    for count in range(3):
        keep = min(0.9, (1 + count) / (10 + count))
        expected = keep * expected + (1 - keep)
    assert average[0].item() == pytest.approx(expected)


def test_learning_rate_rises_and_falls() -> None:
    config = small_config("train.learning_rate=1.0", "train.warmup_steps=10", "train.max_steps=100").train
    rates = [learning_rate(step, config) for step in range(101)]
    assert rates[0] < 0.1
    assert max(rates) == pytest.approx(1, abs=0.05)
    assert rates[100] == pytest.approx(0.01)
    constant = small_config("train.lr_schedule=constant", "train.warmup_steps=0", "train.learning_rate=0.5").train
    assert learning_rate(70, constant) == 0.5


class Poison:
    """Make the gradient of chosen steps not a number."""

    def __init__(self, steps: set[int]) -> None:
        self.steps, self.original = steps, trainer.training_losses

    def __call__(self, model: torch.nn.Module, batch: object, *rest: object):
        losses = self.original(model, batch, *rest)
        if int(batch.position[0]) // 4 in self.steps:
            losses = type(losses)(losses.total * float("nan"), losses.noise, losses.anchor)
        return losses


def test_a_step_that_is_not_finite_is_skipped_and_counted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "training_losses", Poison({1, 3}))
    outcome = train(folder, tmp_path / "run", small_config(*STEPS))
    assert outcome.skipped == 2
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / "run").values())


def test_training_stops_when_nothing_is_finite(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "training_losses", Poison(set(range(2, 100))))
    with pytest.raises(TrainingError, match="not finite in 5 steps in a row, up to step 7.*Lower train.learning_rate"):
        train(
            folder, tmp_path / "run", small_config("train.max_steps=50", "train.max_nonfinite=5", "train.save_every=2")
        )
    assert (tmp_path / "run" / "state").exists()


def test_early_stop(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = iter([0.5, 0.6, 0.4, 0.3, 0.9])
    numbers = ("iou", "dice_member", "dice_anchor", "agreement")
    monkeypatch.setattr(
        trainer.Validator, "__call__", lambda self, model, path: {"dice": next(dice), **dict.fromkeys(numbers, 0.0)}
    )
    config = small_config("train.max_steps=50", "train.val_every=1", "train.patience=2")
    outcome = train(folder, tmp_path / "run", config)
    assert (outcome.reason, outcome.step, outcome.best_step, outcome.best_dice) == ("stopped early", 4, 2, 0.6)


def test_ctrl_c_leaves_a_checkpoint_to_resume_from(folder: Path, tmp_path: Path) -> None:
    config = small_config("train.max_steps=100000", "train.val_every=50000", "train.save_every=50000")

    def press() -> None:
        log = tmp_path / "run" / "log.jsonl"
        while not (log.exists() and log.read_text()):
            threading.Event().wait(0.05)
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    outcome = train(folder, tmp_path / "run", config)
    assert outcome.reason == "interrupted"
    assert Segmenter.from_pretrained(tmp_path / "run", device="cpu")  # usable, though never validated
    longer = small_config(f"train.max_steps={outcome.step + 2}", "train.val_every=50000", "train.save_every=50000")
    assert train(folder, tmp_path / "run", longer, resume=True).step == outcome.step + 2


def test_a_full_disk_keeps_the_previous_checkpoint(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = state._publish, []

    def full_the_second_time(part: Path, whole: Path) -> None:
        calls.append(whole)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        original(part, whole)

    monkeypatch.setattr(state, "_publish", full_the_second_time)
    config = small_config("train.max_steps=6", "train.val_every=6", "train.save_every=2")
    with pytest.raises(CheckpointError, match="No space left.*step-00000002 is unchanged; free some space and resume"):
        train(folder, tmp_path / "run", config)
    assert [p.name for p in (tmp_path / "run" / "state").iterdir()] == ["step-00000002"]
    assert train(folder, tmp_path / "run", config, resume=True).step == 6


def test_runs_are_not_overwritten_and_not_mixed(trained: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = trained
    with pytest.raises(ConfigError, match="holds a run already.*--resume"):
        train(data, run, small_config(*STEPS))
    with pytest.raises(CheckpointError, match=r"other values of model\.mlp_ratio, train\.learning_rate"):
        train(data, run, small_config(*STEPS, "model.mlp_ratio=2", "train.learning_rate=0.1"), resume=True)
    with pytest.raises(CheckpointError, match="no checkpoint to resume from"):
        train(data, tmp_path / "new", small_config(*STEPS), resume=True)


def test_bad_data_show_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    write_png(folder / "images" / "case04.png", np.full((40, 32), 9, np.uint8))
    with pytest.raises(DataError, match=r"case04\.png: every pixel has the value"):
        train(folder, tmp_path / "run", small_config(*STEPS))
    assert not (tmp_path / "run").exists()


def test_a_configuration_that_contradicts_the_data_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.channels is 3, but the data in .* are 1"):
        train(folder, tmp_path / "run", small_config(*STEPS, "data.channels=3"))


@pytest.mark.parametrize("kind", ["exclusive", "regions"])
def test_classes_and_regions_train(folder: Path, tmp_path: Path, kind: str) -> None:
    for path in list((folder / "masks").iterdir()):
        labels = np.zeros((40, 32), np.uint8)
        labels[8:30, 8:24], labels[14:22, 12:20] = 1, 2
        if kind == "exclusive":
            write_png(path, labels)
            continue
        path.unlink()
        write_png(folder / "masks" / "disc" / path.name, (labels > 0).astype(np.uint8) * np.uint8(255))
        write_png(folder / "masks" / "cup" / path.name, (labels > 1).astype(np.uint8) * np.uint8(255))
    outcome = train(folder, tmp_path / "run", small_config(*STEPS))
    assert outcome.step == 6
    assert load_config(tmp_path / "run").data.task == kind
    result = Segmenter.from_pretrained(tmp_path / "run", device="cpu")(folder / "images" / "case00.png")
    assert result.task == kind


def test_trackers_are_written(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    train(folder, tmp_path / "run", small_config(*STEPS, "train.trackers=[tensorboard]"))
    assert list((tmp_path / "run" / "medsegdiff").rglob("events.*"))
