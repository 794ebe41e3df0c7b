"""Two processes (gloo) train as one does, whether each holds the network or half of it: one launch for all."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from medsegdiff.config.run import Config
from medsegdiff.errors import ConfigError
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.training.train import train
from tests.makers import SMALL, make_folder, small_config, small_network
from tests.program import call

STEPS = (
    "train.save_every=100",
    "train.val_cases=3",
    "sampling.batch_size=2",
    "train.lr_schedule=constant",
    "data.val_fraction=0.3",
)
"""Three batches to validate, so that one of two processes has none in the second round."""
PP = (
    "train.val_every=5",
    *("model.scale_shift=true", "train.gradient_checkpointing=true", "model.num_heads=4", "model.attention_levels=[]"),
    *("diffusion.target=eps", "data.augment=true", "train.ema_decay=0.5", "train.max_grad_norm=0.5"),
    "train.seed=1",  # with 0 an activation of step 4 is so close to 0 that rounding turns it on or off
)
"""What the preset ``pp`` has at its size, and gradients that are clipped."""
V2 = ("train.val_every=2", "train.gradient_checkpointing=true", "train.max_grad_norm=null")


LENGTHS = {"pp": (3, 5), "v2": (3,)}
"""Steps of a run, and of what resumes it."""


def stages(name: str, *, sharding: bool, lengths: tuple[int, ...] | None = None) -> list[Config]:
    """Configure a run and its resumption: two processes with 2 images each, or one with 2 times 2."""
    small = small_network("medsegdiff-v1", *STEPS, *PP) if name == "pp" else small_config(*STEPS, *V2)
    asked = {"batch_size": 2, "accumulate": 1 if sharding else 2, "sharding": sharding}
    return [
        small.model_copy(update={"train": small.train.model_copy(update={**asked, "max_steps": steps})})
        for steps in lengths or LENGTHS[name]
    ]


def command(data: Path, out: Path, batch: int, steps: int, *extra: str) -> list[str]:
    """Train two processes, or one with their batches, each with the whole network; the first 3 steps, or more."""
    first = (*SMALL, "data.augment=true") if steps == 3 else ()
    asked = (f"train.batch_size={batch}", f"train.max_steps={steps}", "train.val_every=3", "train.save_every=3")
    sets = [f"--set={value}" for value in (*first, *asked)]
    return ["train", str(data), "--out", str(out), "--device", "cpu", *sets, *extra]


def run_two(arguments: list[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1", f"--master-port={port}"]
    done = subprocess.run(
        [sys.executable, *torchrun, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Trained:
    """The runs of two processes, and what they are to be equal to."""

    data: Path
    whole: Path
    """By the command line, 3 steps and then 2 more; each process holds the whole network."""
    sharded: dict[str, Path]
    alone: dict[str, Path]
    held: list[list[tuple[int, int]]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = tmp_path_factory.mktemp("sharding")
    data = make_folder(root / "data")
    sharded, alone = ({name: root / kind / name for name in LENGTHS} for kind in ("sharded", "alone"))
    plan = {
        str(out): [stage.model_dump(mode="json") for stage in stages(name, sharding=True)]
        for name, out in sharded.items()
    }
    whole = root / "whole"
    plan[str(whole)] = [command(data, whole, 2, 3), command(data, whole, 2, 5, "--resume")]
    (root / "plan.json").write_text(json.dumps(plan))
    run_two(["-m", "tests.integration.sharded_training", str(data), str(root / "plan.json")])
    for name, out in alone.items():
        for number, stage in enumerate(stages(name, sharding=False)):
            train(data, out, stage, resume=number > 0, device="cpu")
    held = [json.loads((root / f"held{rank}.json").read_text()) for rank in (0, 1)]
    return Trained(data, whole, sharded, alone, held)


def losses(run: Path) -> list[dict[str, float]]:
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key.startswith("loss")} for record in records]


def differences(given: Path, expected: Path) -> dict[str, float]:
    """Compare stored tensors, but for two kinds of a batch norm.

    Its running statistics are those of the main process's images alone. The bias before it has no effect, so its
    gradient is rounding error, of which AdamW makes steps.
    """
    one, other = load_file(given), load_file(expected)
    assert list(one) == list(other)
    void = {name.removesuffix("2.running_mean") + "0.bias" for name in one if name.endswith("2.running_mean")}
    compared = [
        name for name in one if not any(part in name for part in ("running_", "num_batches")) and name not in void
    ]
    return {name: float((one[name] - other[name]).abs().max()) for name in compared}


@pytest.mark.slow
def test_two_processes_of_batch_2_equal_one_of_batch_4(trained: Trained, tmp_path: Path) -> None:
    """Same samples, same noise, same weights up to rounding; and one goes on, with the samples that come next."""
    one, two = tmp_path / "one", tmp_path / "two"
    for steps, *extra in ((3,), (5, "--resume")):
        assert call(*command(trained.data, one, 4, steps, *extra)) == 0
    ours, theirs = (load_file(run / "last.safetensors") for run in (one, trained.whole))
    for name, value in ours.items():
        assert torch.allclose(value, theirs[name], atol=2e-5), name
    logs = [
        [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines() if "dice" in line]
        for run in (one, trained.whole)
    ]
    assert logs[0][0]["dice"] == pytest.approx(logs[1][0]["dice"], abs=1e-3)
    shutil.copytree(trained.whole, two)
    assert call(*command(trained.data, two, 2, 6, "--resume")) == 0
    with safe_open(two / "state.safetensors", framework="pt") as stored:
        progress = json.loads(stored.metadata()["progress"])
    assert (progress["step"], progress["position"]) == (6, 5 * 4 + 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pp", "v2"])
def test_two_processes_with_halves_train_as_one_with_all(trained: Trained, name: str) -> None:
    """After 3 steps and, resumed, 2 more: losses, weights, average and moments of the optimizer."""
    sharded, alone = trained.sharded[name], trained.alone[name]
    pairs = list(zip(losses(sharded), losses(alone), strict=True))
    assert len([one for one, _ in pairs if one]) == len(LENGTHS[name])
    for one, other in pairs:
        assert one == pytest.approx(other, rel=1e-6)
    for file in ("last.safetensors", "state.safetensors"):
        far = {key: value for key, value in differences(sharded / file, alone / file).items() if value > 1e-6}
        assert not far, (file, far)


@pytest.mark.slow
def test_each_process_holds_half_of_the_network_and_of_its_average(trained: Trained) -> None:
    for one, other in zip(*trained.held, strict=True):
        assert one[0] + other[0] == one[1] == other[1]
        assert one[0] == pytest.approx(one[1] / 2, rel=0.05)


@pytest.mark.slow
def test_validation_of_a_split_network_scores_every_case_once(trained: Trained) -> None:
    """One of two processes draws one of three cases again, which must not count. V2 has no running statistics."""
    scores = [
        [json.loads(line) for line in (runs["v2"] / "log.jsonl").read_text().splitlines() if "dice" in line]
        for runs in (trained.sharded, trained.alone)
    ]
    assert [record["step"] for record in scores[0]] == [2, 3]
    for one, other in zip(*scores, strict=True):
        for key in ("dice", "iou", "dice_member", "dice_anchor", "agreement"):
            assert one[key] == pytest.approx(other[key], abs=1e-3), key


@pytest.mark.slow
def test_a_run_with_halves_segments_and_goes_on_in_one_process(trained: Trained, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.sharded["pp"], run)
    image = next((trained.data / "images").iterdir())
    assert Segmenter.from_pretrained(run, device="cpu")(image, members=2, steps=2).mask.shape == (40, 32)
    before = load_file(run / "state.safetensors")
    (longer,) = stages("pp", sharding=False, lengths=(6,))
    assert train(trained.data, run, longer, resume=True, device="cpu").step == 6
    after = load_file(run / "state.safetensors")
    steps: list[Tensor] = [state["optimizer.0.step"] for state in (before, after)]
    assert [float(step) for step in steps] == [5, 6]
    assert not torch.equal(before["model.diffusion_model.stem.weight"], after["model.diffusion_model.stem.weight"])


def test_splitting_over_one_process_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    config = small_config("train.sharding=true")
    with pytest.raises(ConfigError, match="only one.*--num_processes"):
        train(make_folder(tmp_path / "data", count=3), tmp_path / "run", config, device="cpu")
    assert not (tmp_path / "run").exists()
