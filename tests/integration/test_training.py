"""Training: resumed equals uninterrupted, averages, guards, stops, checkpoints that survive."""

from __future__ import annotations

import hashlib
import io
import json
import resource
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file

from medsegdiff.data.split import read_split
from medsegdiff.errors import CheckpointError, ConfigError, DataError, TrainingError
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.labels import Labels
from medsegdiff.models.checkpoint import BEST, LAST, STATE, load_config, snapshot_file
from medsegdiff.sharing.card import About
from medsegdiff.sharing.pack import pack
from medsegdiff.training import distillation, processes, state, trainer
from medsegdiff.training import train as training
from medsegdiff.training.memory import describe
from medsegdiff.training.observed import trained_on
from medsegdiff.training.optimizer import MOMENTS, optimizer_for, parameter_groups
from medsegdiff.training.plan import config_for, plan
from medsegdiff.training.run import Run
from medsegdiff.training.state import PROGRESS
from medsegdiff.training.step import RunningMeans, average_in, learning_rate, share_of, snapshot_steps
from medsegdiff.training.step_budget import asked_anywhere, stop_signals
from medsegdiff.training.train import summary, train
from medsegdiff.training.trainer import as_good
from tests.makers import make_folder, small_config, write_png
from tests.program import SETS, call

STEPS = ("train.max_steps=6", "train.val_every=3", "train.save_every=3")


def weights(run: Path, file: str = LAST) -> dict[str, torch.Tensor]:
    return load_file(run / file)


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert set(a) == set(b)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_holds_what_it_takes_to_use_and_repeat_it(trained: tuple[Path, Path]) -> None:
    run, _ = trained
    files = ("config.json", "run.json", "split.csv", "log.jsonl", "curves.png", "calibration.json")
    expected = {BEST, LAST, STATE, PROGRESS, "validation", *files}
    assert {p.name for p in run.iterdir()} == expected
    described = json.loads((run / "run.json").read_text())
    assert described["cases"] == {"train": 9, "val": 1, "test": 2}
    assert set(described["versions"]) >= {"torch", "monai", "medsegdiff"}
    config = load_config(run)
    assert (config.spec.labels, config.spec.channels) == (Labels("binary", ("foreground",)), 1)
    lines = Run(run).lines()
    assert [line["step"] for line in lines if "dice" in line] == [3, 6]
    assert all(np.isfinite(v) for line in lines for v in line.values())
    assert len(list((run / "validation").glob("*.png"))) == 2


def test_no_validation_comes_before_the_diffusion_model_learns(folder: Path, tmp_path: Path) -> None:
    shown = io.StringIO()
    train(folder, tmp_path / "run", small_config(*STEPS, "train.anchor_alone=0.6"), console=Console(file=shown))
    assert "Until step 4 the Condition Model learns alone" in shown.getvalue()
    lines = Run(tmp_path / "run").lines()
    assert [line["step"] for line in lines if "dice" in line] == [6]


def stopping_at(step: int) -> pytest.MonkeyPatch:
    """Pretend that somebody asked to stop after a step."""
    patch = pytest.MonkeyPatch()
    patch.setattr(
        trainer.Trainer, "_asked_to_stop", lambda self, asked: "interrupted" if self.progress.step == step else ""
    )
    return patch


@pytest.mark.parametrize(
    ("step", "about"),
    [
        (4, ()),
        (4, ("train.num_workers=1",)),
        (3, ()),
        (6, ()),
        (4, ("train.optimizer=sgd",)),
        (4, ("train.snapshots=2", "train.draws=2")),
        (2, ("train.anchor_alone=0.6",)),
    ],
    ids=["", "worker", "before a validation", "at the end", "momentum", "snapshots and draws", "anchor alone"],
)
def test_resumed_equals_uninterrupted(folder: Path, tmp_path: Path, step: int, about: tuple[str, ...]) -> None:
    """Stop in the middle and go on: weights, averages, optimizer, best weights and validations are the same bits."""
    config = small_config(*STEPS, "train.accumulate=2", *about)
    train(folder, tmp_path / "whole", config)
    patch = stopping_at(step)
    outcome = train(folder, tmp_path / "parts", config)
    patch.undo()
    assert (outcome.reason, outcome.step) == ("interrupted", step)
    torch.manual_seed(12345)  # nothing may depend on what the process drew before
    outcome = train(folder, tmp_path / "parts", config, resume=True)
    assert (outcome.reason, outcome.step) == ("finished", 6)
    for file in (STATE, LAST, BEST, *map(snapshot_file, range(1, 1 + config.train.snapshots))):
        assert_equal(weights(tmp_path / "whole", file), weights(tmp_path / "parts", file))
    assert progress(tmp_path / "whole") == progress(tmp_path / "parts")
    validations = [[line for line in Run(tmp_path / r).lines() if "dice" in line] for r in ("whole", "parts")]
    assert validations[0] == validations[1]
    again = train(folder, tmp_path / "parts", config, resume=True)
    assert (again.reason, again.step) == ("finished already", 6)


def test_a_validation_that_no_checkpoint_knows_of_is_not_logged_twice(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends between the line of a validation and what is written down of it."""

    def ended(*given: object) -> None:
        raise SystemExit

    config = small_config("train.max_steps=3", "train.val_every=3", "train.save_every=3")
    monkeypatch.setattr(trainer, "save_progress", ended)
    with pytest.raises(SystemExit):
        train(folder, tmp_path / "run", config)
    monkeypatch.undo()
    train(folder, tmp_path / "run", config, resume=True)
    assert [line["step"] for line in Run(tmp_path / "run").lines() if "dice" in line] == [3]


def test_last_weights_are_those_of_the_state_though_a_kill_came_between(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config("train.max_steps=3", "train.val_every=3", "train.save_every=2")
    train(folder, tmp_path / "whole", config)
    save = trainer.save_weights

    def killed_at_the_end(file: Path, tensors: Any, facts: dict[str, int]) -> None:
        if (file.name, facts["step"]) == (LAST, 3):
            raise SystemExit
        save(file, tensors, facts)

    monkeypatch.setattr(trainer, "save_weights", killed_at_the_end)
    with pytest.raises(SystemExit):
        train(folder, tmp_path / "run", config)
    monkeypatch.undo()
    train(folder, tmp_path / "run", config, resume=True)
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "run"))


def progress(run: Path) -> tuple[dict[str, str], str]:
    with safe_open(run / STATE, framework="pt") as stored:
        return stored.metadata(), (run / PROGRESS).read_text()


def test_a_validation_writes_no_tensors_anew_and_is_not_made_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[str] = []
    save = trainer.save_weights

    def counted(file: Path, *given: Any) -> None:
        saved.append(file.name)
        save(file, *given)

    monkeypatch.setattr(trainer, "save_weights", counted)
    monkeypatch.setattr(state, "save_weights", counted)
    first = train(folder, tmp_path / "run", small_config(*STEPS))
    assert [saved.count(file) for file in (STATE, LAST)] == [2, 2]  # of two validations
    again = train(folder, tmp_path / "run", small_config(*STEPS), resume=True)
    assert (again.reason, again.best_dice, again.best_step) == ("finished already", first.best_dice, first.best_step)


def test_a_run_that_stopped_early_makes_no_further_step(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = dict.fromkeys(("dice", "iou", "dice_member", "dice_anchor", "agreement"), 0.5)
    monkeypatch.setattr(trainer.Validator, "__call__", lambda self, model, path: numbers)
    config = small_config("train.max_steps=20", "train.val_every=2", "train.patience=1", "train.save_every=20")
    assert train(folder, tmp_path / "run", config).step == 4
    before = (tmp_path / "run" / STATE).read_bytes()
    again = train(folder, tmp_path / "run", config, resume=True)
    assert (again.reason, again.step) == ("stopped early", 4)
    assert (tmp_path / "run" / STATE).read_bytes() == before


def test_weights_to_segment_with_are_the_newest_until_a_validation_knows_better(folder: Path, tmp_path: Path) -> None:
    config = small_config("train.max_steps=6", "train.val_every=6", "train.save_every=1")
    for step in (2, 4):
        patch = stopping_at(step)
        train(folder, tmp_path / "run", config, resume=step > 2)
        patch.undo()
        assert_equal(weights(tmp_path / "run", BEST), weights(tmp_path / "run", LAST))


def test_a_folder_with_data_is_not_made_a_run(folder: Path) -> None:
    (folder / "split.csv").write_text("id,split,patient\ncase00,train,7\n")
    with pytest.raises(ConfigError, match="holds images, masks, split.csv, perhaps your data"):
        train(folder, folder, small_config(*STEPS))
    assert "patient" in (folder / "split.csv").read_text()


def test_a_tracker_that_is_missing_is_said_before_training(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medsegdiff.training.processes.get_available_trackers", list)
    with pytest.raises(ConfigError, match="tensorboard can't be imported. Install it"):
        train(folder, tmp_path / "run", small_config(*STEPS, "train.trackers=[tensorboard]"))


def test_resuming_keeps_the_runs_split_though_data_were_added(folder: Path, tmp_path: Path) -> None:
    """A new split would move test cases into training."""
    patch = stopping_at(4)
    train(folder, tmp_path / "run", small_config(*STEPS))
    patch.undo()
    before = (tmp_path / "run" / "split.csv").read_text()
    for kind in ("images", "masks"):
        for i in range(9):
            shutil.copyfile(folder / kind / f"case{i:02d}.png", folder / kind / f"new{i:02d}.png")
    train(folder, tmp_path / "run", small_config(*STEPS), resume=True)
    assert (tmp_path / "run" / "split.csv").read_text() == before
    (folder / "images" / "case03.png").unlink()
    (folder / "masks" / "case03.png").unlink()
    longer = small_config("train.max_steps=9", "train.val_every=3", "train.save_every=3")
    with pytest.raises(CheckpointError, match="trained on cases that are gone: case03"):
        train(folder, tmp_path / "run", longer, resume=True)


def test_a_test_case_that_is_gone_does_not_keep_a_run_from_going_on(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(folder, tmp_path / "run", small_config("train.max_steps=1"))
    before = split_of(tmp_path / "run")
    gone = next(name for name, part in before.items() if part == "test")
    for kind in ("images", "masks"):
        (folder / kind / f"{gone}.png").unlink()
    assert train(folder, tmp_path / "run", small_config("train.max_steps=2"), resume=True).step == 2
    assert split_of(tmp_path / "run") == before
    assert f"1 test cases are gone: {gone}. Training does not need them; scores will." in caplog.text


def add_cases(folder: Path, count: int) -> None:
    for kind in ("images", "masks"):
        for i in range(count):
            shutil.copyfile(folder / kind / f"case{i:02d}.png", folder / kind / f"added{i:02d}.png")


def split_of(run: Path) -> dict[str, str]:
    return {entry.name: entry.part for entry in read_split(run / "split.csv")}


def test_what_a_run_was_trained_on_is_not_held_out_by_one_that_starts_with_it(folder: Path, tmp_path: Path) -> None:
    config, shown = small_config("train.max_steps=1"), io.StringIO()
    train(folder, tmp_path / "first", config)
    add_cases(folder, 8)
    other = small_config("train.max_steps=1", "data.split_seed=5")
    train(folder, tmp_path / "second", other, start=tmp_path / "first", console=Console(file=shown, width=500))
    before, split = split_of(tmp_path / "first"), split_of(tmp_path / "second")
    assert len(split) == 20
    assert {name: split[name] for name in before} == before
    assert f"12 cases are in the part that they have in {tmp_path / 'first'}." in shown.getvalue()
    record = json.loads((tmp_path / "second" / "run.json").read_text())
    weights = hashlib.sha256((tmp_path / "first" / BEST).read_bytes()).hexdigest()
    assert record["started_from"] == {"folder": str(tmp_path / "first"), "sha256": weights, "trained_known": True}


def test_what_earlier_runs_were_trained_on_is_remembered_and_said_where_data_hold_it_out(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = small_config("train.max_steps=1")
    train(folder, tmp_path / "first", config)
    seen = {name for name, part in split_of(tmp_path / "first").items() if part == "train"}
    other = make_folder(tmp_path / "other", seed=1)
    for path in [*other.rglob("*.png")]:
        path.rename(path.with_name(f"new-{path.name}"))
    train(other, tmp_path / "second", config, start=tmp_path / "first")
    assert "was trained on" not in caplog.text
    shutil.rmtree(tmp_path / "first")
    rows = [f"case{i:02d},{'val' if i < 4 else 'train'},p{i // 2}" for i in range(12)]
    (folder / "split.csv").write_text("\n".join(["id,split,patient", *rows]))
    train(folder, tmp_path / "third", config, start=tmp_path / "second")
    assert split_of(tmp_path / "third")["case00"] == "val"
    assert f"The data hold out 4 cases that have names of cases or patients that {tmp_path / 'second'}" in caplog.text
    assert Run(tmp_path / "third").trained >= seen
    assert trained_on([tmp_path / "third"], {"case00": "p0", "case01": "p0", "x": ""}) == ["case00", "case01"]


def test_what_a_model_does_not_tell_of_its_training_is_unknown_to_all_that_start_with_it(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config, about = small_config("train.max_steps=1"), About("disc", "apache-2.0")
    train(folder, tmp_path / "first", config)
    pack(tmp_path / "first", tmp_path / "packed", about)
    pack(tmp_path / "first", tmp_path / "telling", about, with_split=True)
    said = []
    for parent, child in (("telling", "known"), ("packed", "second"), ("second", "third")):
        caplog.clear()
        train(folder, tmp_path / child, config, start=tmp_path / parent)
        said.append(f"{tmp_path / parent} does not tell all that it was trained on" in caplog.text)
    assert said == [False, True, True]
    assert [Run(tmp_path / name).tells_trained for name in ("known", "second", "third")] == [True, False, False]
    for name in ("second", "third", "known"):  # as earlier versions wrote it
        told = json.loads((tmp_path / name / "run.json").read_text())
        del told["started_from"]["trained_known"]
        (tmp_path / name / "run.json").write_text(json.dumps(told))
    assert [Run(tmp_path / name).tells_trained for name in ("known", "second", "third")] == [True, False, False]
    shutil.rmtree(tmp_path / "telling")
    assert not Run(tmp_path / "known").tells_trained


def test_a_run_whose_record_is_damaged_can_be_started_with_and_a_damaged_card_is_told_first(
    folder: Path, tmp_path: Path
) -> None:
    config = small_config("train.max_steps=1")
    train(folder, tmp_path / "first", config)
    packed = pack(tmp_path / "first", tmp_path / "packed", About("disc", "apache-2.0")).folder
    (packed / "README.md").write_text("---\nlicense: [\n---\nmine")
    with pytest.raises(DataError, match=r"README\.md: can't be read (?s:.*) Mend the lines"):
        train(tmp_path / "no images", tmp_path / "second", config, start=packed)
    assert not (tmp_path / "second").exists()
    (tmp_path / "first" / "run.json").write_text('{"comm')
    train(folder, tmp_path / "third", config, start=tmp_path / "first")
    assert json.loads((tmp_path / "third" / "run.json").read_text())["started_from"]["trained_known"] is False


def test_a_packed_model_names_those_that_it_began_with_and_their_licences(folder: Path, tmp_path: Path) -> None:
    config, licence, said = small_config("train.max_steps=1"), tmp_path / "text", list[str]()
    licence.write_text("For no money.")
    train(folder, tmp_path / "first", config)
    theirs = pack(tmp_path / "first", tmp_path / "x", About("theirs", "cc-by-nc-4.0"), license_file=licence).folder
    train(folder, tmp_path / "second", config, start=theirs)
    began = json.loads((tmp_path / "second" / "run.json").read_text())["started_from"]
    assert (began["name"], began["license"]) == ("theirs", "cc-by-nc-4.0")
    train(folder, tmp_path / "third", config, start=tmp_path / "second")
    ours = pack(tmp_path / "third", tmp_path / "y", About("ours", "apache-2.0"), noted=said.append).folder
    assert ["of theirs, whose licence is cc-by-nc-4.0; this one is apache-2.0" in line for line in said] == [True]
    assert "Began with the weights of theirs; their licence: cc-by-nc-4.0." in (ours / "README.md").read_text()
    again = pack(ours, tmp_path / "z", About("again", "apache-2.0")).folder
    assert "Began with the weights of theirs" in (again / "README.md").read_text()
    assert str(tmp_path) not in (again / "config.json").read_text()


def test_a_run_computes_in_what_the_machine_at_hand_is_fast_in_unless_told_otherwise(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, run = io.StringIO(), tmp_path / "run"
    fast = {"auto": "bf16", "fp32": "fp32"}
    monkeypatch.setattr("medsegdiff.training.plan.pick_precision", lambda precision, _: fast[precision])
    console = Console(file=shown, width=500)
    train(folder, run, small_config("train.max_steps=1", "train.precision=auto"), console=console)
    fast["auto"] = "fp32"
    longer = config_for(run, resume=True, changes=["train.max_steps=2"])
    train(folder, run, longer, resume=True, console=console)
    train(folder, tmp_path / "new", config_for(tmp_path / "new", start=run), start=run, console=console)
    told = [line.rsplit(", ", 1)[1] for line in shown.getvalue().splitlines() if " px, " in line]
    assert told == ["bf16", "fp32", "fp32"]
    fast["auto"] = "bf16"
    train(folder, tmp_path / "exact", small_config("train.max_steps=1", "train.precision=fp32"))
    assert config_for(tmp_path / "exact", resume=True).train.precision == "fp32"


def test_a_resumed_run_tells_all_the_commands_that_it_was_made_with(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [tmp_path / "first", tmp_path / "second"]
    train(folder, runs[0], small_config("train.max_steps=1"))
    for steps, start in ((1, runs[0]), (2, None), (3, None)):
        monkeypatch.setattr("sys.argv", ["medsegdiff", f"--steps={steps}"])
        train(folder, runs[1], small_config(f"train.max_steps={steps}"), resume=start is None, start=start)
    record = json.loads((runs[1] / "run.json").read_text())
    assert [of["command"][-1] for of in record["commands"]] == ["--steps=1", "--steps=2", "--steps=3"]
    assert [of["first_step"] for of in record["commands"]] == [0, 1, 2]
    assert {of["precision"] for of in record["commands"]} == {"fp32"}
    assert all(datetime.fromisoformat(of["time"]).tzinfo and of["versions"]["torch"] for of in record["commands"])
    assert record["started_from"]["folder"] == str(runs[0])


def test_the_command_of_a_run_of_an_earlier_version_is_kept_when_it_is_resumed(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(folder, run, small_config("train.max_steps=1"))
    record = json.loads((run / "run.json").read_text())
    before = {key: record[key] for key in record if key != "commands"} | {"command": ["medsegdiff", "train"]}
    before["versions"]["torch"] = "2.3"
    (run / "run.json").write_text(json.dumps(before))
    train(folder, run, small_config("train.max_steps=2"), resume=True)
    first, second = json.loads((run / "run.json").read_text())["commands"]
    assert (first["command"], first["versions"]["torch"]) == (["medsegdiff", "train"], "2.3")
    assert second["first_step"] == 1


def test_the_folder_in_which_another_run_kept_its_cases_is_not_inherited(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    train(folder, tmp_path / "run", small_config("train.max_steps=1", f"data.cache_dir={tmp_path / 'job'}"))
    (tmp_path / "job").rmdir()  # as the scheduler does when a job is over
    assert config_for(tmp_path / "new", start=tmp_path / "run").data.cache_dir is None
    longer = config_for(tmp_path / "run", resume=True, changes=["train.max_steps=2"])
    with pytest.raises(ConfigError, match=r"or set data\.cache_dir=null"):
        train(folder, tmp_path / "run", longer, resume=True)
    elsewhere = config_for(tmp_path / "run", resume=True, changes=["train.max_steps=2", "data.cache_dir=null"])
    assert train(folder, tmp_path / "run", elsewhere, resume=True).step == 2


def test_one_command_begins_a_run_and_goes_on_with_it(folder: Path, tmp_path: Path) -> None:
    for steps in (1, 2, 2):
        asked = ("--auto-resume", "--recipe", "common", *SETS, "--set", f"train.max_steps={steps}", "--device", "cpu")
        assert call("train", folder, "-o", tmp_path / "run", "--preset", "v2-fast-tiny", *asked) == 0
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert sorted({*steps}) == [1, 2]


@pytest.mark.parametrize(("resume", "other"), [(False, (True, (9, 9))), (True, (True, (9, 9))), (True, (False, None))])
def test_processes_that_see_different_checkpoints_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resume: bool, other: object
) -> None:
    (tmp_path / STATE).write_text("state")
    monkeypatch.setattr(processes, "gather_object", lambda own: [*own, *own])
    processes.check_alike(Run(tmp_path), processes=2, resume=resume)
    monkeypatch.setattr(processes, "gather_object", lambda own: [*own, other])
    with pytest.raises(
        CheckpointError, match=rf"not all .* \(process 0 {'goes on' if resume else 'begins'}, process 1"
    ):
        processes.check_alike(Run(tmp_path), processes=2, resume=resume)


def test_a_resumed_run_goes_on_with_the_next_samples_whatever_the_batch(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    original = distillation.training_losses

    def spy(model: torch.nn.Module, batch: object, **rest: object):
        seen.extend(batch.positions)
        return original(model, batch, **rest)

    monkeypatch.setattr(distillation, "training_losses", spy)
    patch = stopping_at(2)
    train(folder, tmp_path / "run", small_config(*STEPS))
    patch.undo()
    train(folder, tmp_path / "run", small_config(*STEPS, "train.batch_size=2"), resume=True)
    assert seen == list(range(4 * 2 + 2 * 4))


def test_average_is_not_the_raw_weights_and_is_what_samples(trained: tuple[Path, Path]) -> None:
    run, _ = trained
    state = weights(run, STATE)
    raw, average = ({k.removeprefix(p): v for k, v in state.items() if k.startswith(p)} for p in ("model.", "average."))
    assert any(not torch.equal(raw[name], average[name]) for name in raw)
    assert_equal(average, weights(run))
    assert_equal(dict(Segmenter.from_pretrained(run, weights="last", device="cpu").model.state_dict()), average)


def test_biases_norms_and_gaussians_do_not_decay() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.GroupNorm(1, 3))
    decays, stays = parameter_groups(model, 0.1)
    assert [p.ndim for p in decays["params"]] == [4]
    assert (decays["weight_decay"], stays["weight_decay"], len(stays["params"])) == (0.1, 0.0, 3)


def test_means_are_means_since_the_last_time() -> None:
    means = RunningMeans()
    for value in (1.0, 2.0, 6.0):
        means.add(loss=torch.tensor(value), other=torch.tensor(1.0))
    assert means.take(lambda values: values) == {"loss": 3.0, "other": 1.0}
    means.add(loss=torch.tensor(5.0), other=torch.tensor(0.0))
    assert means.take(lambda values: values)["loss"] == 5.0


def test_moving_average_by_hand() -> None:
    """From 0 towards 1: the first is taken whole; after the next it keeps 2/11; in the long run the decay."""
    for count, expected in ((0, 1.0), (1, 9 / 11), (8, 0.5), (10_000, 0.1)):
        average, current = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
        torch.nn.init.zeros_(average.weight)
        torch.nn.init.ones_(current.weight)
        average_in(average, current, share_of(torch.tensor(count), decay=0.9))
        assert average.weight.item() == pytest.approx(expected)


def weights_by_step(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Weights after each step of the trainings to come."""
    seen: list[torch.Tensor] = []
    log = trainer.Trainer._log

    def watch(self: trainer.Trainer, monitor: object) -> None:
        seen.append(torch.cat([p.detach().flatten().clone() for p in self.step.model.parameters()]))
        log(self, monitor)

    monkeypatch.setattr(trainer.Trainer, "_log", watch)
    return seen


def test_the_average_follows_the_weights_step_by_step(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the average of the weights of every step, taken by hand; the first step is taken as it is."""
    seen = weights_by_step(monkeypatch)
    train(folder, tmp_path / "run", small_config(*STEPS, "train.warmup_steps=0"))
    expected, *later = seen
    for count, current in enumerate(later, start=1):
        expected = expected + (1 - (1 + count) / (10 + count)) * (current - expected)
    model = Segmenter.from_pretrained(tmp_path / "run", device="cpu", weights="last").model
    average = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert len(seen) == 6
    assert torch.allclose(average, expected, atol=1e-6)


def test_snapshots_are_short_averages_and_members_have_them(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against an average by hand of the weights up to the step of each; the rate is held while they are taken."""
    seen = weights_by_step(monkeypatch)
    config = small_config("train.max_steps=20", "train.val_every=20", "train.warmup_steps=0", "train.snapshots=2")
    train(folder, tmp_path / "run", config)
    segmenter = Segmenter.from_pretrained(tmp_path / "run", device="cpu", weights="last")
    assert snapshot_steps(2, 20) == {14: 1, 17: 2}
    for snapshot, steps in zip(segmenter.snapshots, (14, 17), strict=True):
        expected = seen[0]
        for count, current in enumerate(seen[1:steps], start=1):
            expected = expected + (1 - min(0.99, (1 + count) / (10 + count))) * (current - expected)
        found = torch.cat([p.detach().flatten() for p in snapshot.parameters()])
        assert torch.allclose(found, expected, atol=1e-6)
    rates = [learning_rate(step, config.train) / config.train.learning_rate for step in range(21)]
    assert rates[0] == 1
    assert [rates[step] for step in (10, 14, 16)] == pytest.approx([0.25] * 3)
    assert rates[20] == pytest.approx(0.01)
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("number", [1, 2, 4, 7])
def test_snapshots_have_steps_of_their_own_and_numbers_without_gaps(number: int) -> None:
    for total in range(1, 60):
        steps, held = snapshot_steps(number, total), round(0.85 * total) - round(0.5 * total)
        assert list(steps.values()) == list(range(1, min(number, held) + 1))
        assert list(steps) == sorted(steps)
        assert all(round(0.5 * total) < step <= round(0.85 * total) for step in steps)


def test_of_a_short_training_as_many_snapshots_count_as_there_are(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In eight steps the rate is held for three; the mean takes each set of weights once."""
    of_training = ("train.max_steps=8", "train.val_every=8", "train.warmup_steps=0", "train.snapshots=4")
    run = tmp_path / "run"
    train(folder, run, small_config(*of_training, "sampling.members=9"))
    assert "train.snapshots is 4; in 8 steps the learning rate is held for 3" in caplog.text
    assert sorted(file.name for file in run.glob("snapshot-*")) == [snapshot_file(number) for number in (1, 2, 3)]
    segmenter = Segmenter.from_pretrained(run, device="cpu")
    assert len(segmenter.snapshots) == segmenter.config.train.snapshots == 3
    assert len(segmenter(next((folder / "images").iterdir()), mode="mean").members) == 4
    assert describe(str(run))["gmac"]["looks"] == 4


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
        self.steps, self.original = steps, distillation.training_losses

    def __call__(self, model: torch.nn.Module, batch: object, **rest: object):
        losses = self.original(model, batch, **rest)
        if batch.positions[0] // 4 in self.steps:
            losses = type(losses)(losses.total * float("nan"), losses.noise, losses.anchor)
        return losses


def test_a_step_that_is_not_finite_is_skipped_and_counted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distillation, "training_losses", Poison({1, 3}))
    outcome = train(folder, tmp_path / "run", small_config(*STEPS))
    assert outcome.skipped == 2
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / "run").values())


def test_training_stops_when_nothing_is_finite(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distillation, "training_losses", Poison(set(range(2, 100))))
    with pytest.raises(TrainingError, match="not finite in 5 steps in a row, up to step 7.*Lower train.learning_rate"):
        train(
            folder, tmp_path / "run", small_config("train.max_steps=50", "train.max_nonfinite=5", "train.save_every=2")
        )
    assert (tmp_path / "run" / "state.safetensors").exists()


def test_early_stop(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = iter([0.5, 0.6, 0.4, 0.3, 0.9])
    numbers = ("iou", "dice_member", "dice_anchor", "agreement")
    monkeypatch.setattr(
        trainer.Validator, "__call__", lambda self, model, path: {"dice": next(dice), **dict.fromkeys(numbers, 0.0)}
    )
    config = small_config("train.max_steps=50", "train.val_every=1", "train.patience=2")
    outcome = train(folder, tmp_path / "run", config)
    assert (outcome.reason, outcome.step, outcome.best_step, outcome.best_dice) == ("stopped early", 4, 2, 0.6)


def test_newer_weights_are_kept_unless_they_are_worse_by_more_than_chance() -> None:
    """Truth: simulated validations. Of two networks that are alike the newer is kept in 5 of 6 cases, not in half."""
    rng = np.random.default_rng(0)
    before, same, worse = (rng.normal(mean, 0.05, (2000, 24)) for mean in (0.8, 0.8, 0.74))

    def kept(now: np.ndarray) -> float:
        return float(
            np.mean([as_good(list(a), list(b), gain=a.mean() - b.mean()) for a, b in zip(now, before, strict=True)])
        )

    assert kept(same) == pytest.approx(0.84, abs=0.03)
    assert kept(worse) < 0.01
    assert as_good([0.5], [0.6], gain=-0.1) is False
    assert as_good([], [], gain=0.0) is True


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


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Make the system refuse to let a file grow, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_keeps_the_previous_checkpoint(folder: Path, tmp_path: Path) -> None:
    patch = stopping_at(2)
    train(folder, tmp_path / "run", small_config(*STEPS))
    patch.undo()
    kept = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir() if p.suffix == ".safetensors"}
    assert set(kept) == {STATE, LAST, BEST}
    config = small_config("train.max_steps=6", "train.val_every=6", "train.save_every=4")
    with (
        files_no_larger_than(len(kept[STATE]) // 2),
        pytest.raises(CheckpointError, match=r"state\.safetensors: can't be written.*unchanged; free some space"),
    ):
        train(folder, tmp_path / "run", config, resume=True)
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir() if p.suffix == ".safetensors"} == kept
    assert not list((tmp_path / "run").glob(".*"))
    assert train(folder, tmp_path / "run", config, resume=True).step == 6


def test_a_full_disk_speaks_of_resuming_only_where_there_is_something_to_resume(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "check_room", lambda *_: None)
    begin_again = r"state\.safetensors: can't be written.*Free some space, or choose another folder, and begin again"
    with files_no_larger_than(100_000), pytest.raises(CheckpointError, match=begin_again):
        train(folder, tmp_path / "run", small_config(*STEPS))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_log_that_can_not_grow_says_which_and_why(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"log\.jsonl: No space left on device\. What was there"):
        Run(tmp_path).append({"step": 1, "loss": 0.123456789})


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """No image may be read."""
    monkeypatch.setattr(training, "read_cases", lambda *_, **__: pytest.fail("images are read"))


def test_a_disk_without_room_for_checkpoints_shows_before_images_are_read(
    folder: Path, tmp_path: Path, trained: tuple[Path, Path], unread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = {file: (trained[0] / file).stat().st_size for file in (STATE, LAST, BEST)}
    needed = 2 * size[STATE] + size[LAST] + size[BEST]
    monkeypatch.setattr("medsegdiff.training.run.shutil.disk_usage", lambda _: SimpleNamespace(free=0.8 * needed))
    with pytest.raises(CheckpointError, match=r"run: checkpoints take \d MB.*Free some space, or choose an --out"):
        train(folder, tmp_path / "run", small_config(*STEPS))
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr("medsegdiff.training.run.shutil.disk_usage", lambda _: SimpleNamespace(free=1.2 * needed))
    with pytest.raises(pytest.fail.Exception, match="images are read"):
        train(folder, tmp_path / "run", small_config(*STEPS))
    monkeypatch.setattr("medsegdiff.training.run.shutil.disk_usage", lambda _: SimpleNamespace(free=1.2 * size[STATE]))
    with pytest.raises(pytest.fail.Exception, match="images are read"):  # what is there already needs no more room
        train(trained[1], trained[0], small_config(*STEPS), resume=True)


def test_a_folder_that_can_not_be_made_shows_before_images_are_read(folder: Path, tmp_path: Path, unread: None) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"run: can't be written to \(Not a directory\). Choose another --out"):
        train(folder, tmp_path / "file" / "run", small_config(*STEPS))


@pytest.mark.parametrize("name", sorted(MOMENTS))
def test_what_an_optimizer_keeps_of_each_weight_is_known(name: str) -> None:
    network = torch.nn.Linear(30, 20)
    optimizer = optimizer_for(network, small_config(f"train.optimizer={name}").train)
    network(torch.ones(1, 30)).sum().backward()
    optimizer.step()
    kept = [value.numel() for state in optimizer.state.values() for value in state.values() if value.numel() > 1]
    assert sum(kept) == MOMENTS[name] * sum(weight.numel() for weight in network.parameters())


def test_a_damaged_checkpoint_is_refused(folder: Path, tmp_path: Path) -> None:
    patch = stopping_at(2)
    train(folder, tmp_path / "run", small_config(*STEPS))
    patch.undo()
    file = tmp_path / "run" / STATE
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match="the checkpoint can't be read"):
        train(folder, tmp_path / "run", small_config(*STEPS), resume=True)


def test_signals_ask_and_only_a_second_ctrl_c_insists(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("medsegdiff.training.step_budget.time.monotonic", lambda: now[0])
    before = signal.getsignal(signal.SIGTERM)
    with stop_signals() as request:
        assert not request.made
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # cluster managers and launchers both send one
        signal.raise_signal(signal.SIGINT)  # a double press
        assert request.made
        now[0] += 2
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_that_comes_while_processes_ask_each_other_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    told, signals = [False], [signal.SIGTERM]

    def ask(self: Accelerator) -> bool:
        known = told[0]  # when they began to wait for each other
        if signals:
            signal.raise_signal(signals.pop())
        return known

    monkeypatch.setattr(Accelerator, "num_processes", 2)
    monkeypatch.setattr(Accelerator, "set_trigger", lambda self: told.__setitem__(0, True))
    monkeypatch.setattr(Accelerator, "check_trigger", ask)
    accelerator = Accelerator(cpu=True)
    with stop_signals() as request:
        assert [asked_anywhere(request, accelerator) for _ in range(2)] == [False, True]


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


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("sampling.fusion=stapl", "Did you mean 'staple'"),
        ("sampling.sampler=dpmpp-2", "Did you mean 'dpmpp-2m'"),
        ("train.val_steps=5000", "allowed is 1 … 1000"),
    ],
)
def test_sampling_that_can_not_work_shows_before_training(
    folder: Path, tmp_path: Path, override: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        train(folder, tmp_path / "run", small_config(*STEPS, override))
    assert not (tmp_path / "run").exists()


def test_images_of_several_sizes_need_one_grid(folder: Path, tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        pixels = np.random.default_rng(0).integers(0, 2, (64, 40), dtype=np.uint8) * np.uint8(255)
        write_png(folder / kind / "large.png", pixels)
    with pytest.raises(ConfigError, match="images of 2 sizes, which can't be stacked.*data.resize=fit"):
        train(folder, tmp_path / "run", small_config(*STEPS, "data.resize=none"))
    config = small_config(*STEPS, "data.resize=none", "data.image_size=64", "train.batch_size=1")
    assert train(folder, tmp_path / "run", config).step == 6


def test_only_the_cpu_can_be_asked_for(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="allowed is cpu"):
        train(folder, tmp_path / "run", small_config(*STEPS), device="cuda:1")


def test_what_was_understood_of_the_data_is_said(trained: tuple[Path, Path]) -> None:
    _run, data = trained
    planned = plan(data, small_config())
    said = summary(planned.source.info, planned.config)
    assert said == (
        "9 train, 1 val, 2 test cases; grey; binary: foreground; mirrored left–right and top–bottom, turned by up to "
        "180°; 32 px, fp32"
    )


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
    assert load_config(tmp_path / "run").spec.labels.task == kind
    result = Segmenter.from_pretrained(tmp_path / "run", device="cpu")(folder / "images" / "case00.png")
    assert result.labels.task == kind


def test_trackers_are_written(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    train(folder, tmp_path / "run", small_config(*STEPS, "train.trackers=[tensorboard]"))
    assert list((tmp_path / "run" / "medsegdiff").rglob("events.*"))
