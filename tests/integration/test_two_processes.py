"""Two processes (gloo) train as one does: same samples, same noise, same weights up to rounding."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests.makers import SMALL

STEPS = ["train.max_steps=3", "train.val_every=3", "train.save_every=3", "data.augment=true"]


def command(folder: Path, out: Path, batch: int, *extra: str) -> list[str]:
    sets = [f"--set={value}" for value in (*SMALL, *STEPS, f"train.batch_size={batch}")]
    return ["-m", "medsegdiff", "train", str(folder), "--out", str(out), "--device", "cpu", *sets, *extra]


def run_two(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1", f"--master-port={port}"]
    return subprocess.run(
        [sys.executable, *torchrun, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_two_processes_of_batch_2_equal_one_of_batch_4(folder: Path, tmp_path: Path) -> None:
    alone = subprocess.run(
        [sys.executable, *command(folder, tmp_path / "one", 4)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert alone.returncode == 0, alone.stderr
    together = run_two(command(folder, tmp_path / "two", 2))
    assert together.returncode == 0, together.stderr
    one, two = (load_file(tmp_path / run / "last.safetensors") for run in ("one", "two"))
    for name, value in one.items():
        assert torch.allclose(value, two[name], atol=2e-5), name
    logs = [
        [json.loads(line) for line in (tmp_path / run / "log.jsonl").read_text().splitlines() if "dice" in line]
        for run in ("one", "two")
    ]
    assert logs[0][0]["dice"] == pytest.approx(logs[1][0]["dice"], abs=1e-3)
    longer = [value.replace("max_steps=3", "max_steps=5") for value in command(folder, tmp_path / "two", 2, "--resume")]
    resumed = run_two([value for value in longer if not value.startswith(("--set=model", "--set=data"))])
    assert resumed.returncode == 0, resumed.stderr
    alone = subprocess.run(  # a run of two processes goes on in one, with the samples that come next
        [sys.executable, *[v.replace("max_steps=5", "max_steps=6") for v in longer if not v.startswith("--set=model")]],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert alone.returncode == 0, alone.stderr
    with safe_open(tmp_path / "two" / "state.safetensors", framework="pt") as stored:
        progress = json.loads(stored.metadata()["progress"])
    assert (progress["step"], progress["position"]) == (6, 5 * 4 + 2)
