"""Two processes (gloo) that each hold half of a network train it as one process does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from medsegdiff.config import Config
from medsegdiff.errors import ConfigError
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.training.train import train
from tests.makers import make_folder, small_config, small_network

STEPS = ("train.val_every=3", "train.save_every=100", "train.val_cases=3", "train.lr_schedule=constant")
PP = (
    *("model.scale_shift=true", "model.checkpointing=true", "model.num_heads=4", "model.attention_levels=[]"),
    *("diffusion.target=eps", "data.augment=true", "train.ema_decay=0.5", "train.max_grad_norm=0.5"),
)
"""What the preset ``pp`` has at its size, and gradients that are clipped."""
V2 = ("train.gradient_checkpointing=true", "train.max_grad_norm=null")


def stages(small: Config, *, batch: int, accumulate: int, sharding: bool) -> list[Config]:
    """Configure 3 steps, and 2 more."""
    asked = {"batch_size": batch, "accumulate": accumulate, "sharding": sharding}
    return [
        small.model_copy(update={"train": small.train.model_copy(update={**asked, "max_steps": steps})})
        for steps in (3, 5)
    ]


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
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Trained:
    """The runs of two processes, each of which holds a half, and what they are to be equal to."""

    data: Path
    sharded: dict[str, Path]
    alone: dict[str, Path]
    held: list[list[tuple[int, int]]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = tmp_path_factory.mktemp("sharding")
    data = make_folder(root / "data")
    configs = {"pp": small_network("medsegdiff-v1", *STEPS, *PP), "v2": small_config(*STEPS, *V2)}
    sharded, alone = ({name: root / kind / name for name in configs} for kind in ("sharded", "alone"))
    plan = {
        str(sharded[name]): [
            stage.model_dump(mode="json") for stage in stages(config, batch=2, accumulate=1, sharding=True)
        ]
        for name, config in configs.items()
    }
    (root / "plan.json").write_text(json.dumps(plan))
    run_two(["-m", "tests.integration.sharded_training", str(data), str(root / "plan.json")])
    for name, config in configs.items():
        for number, stage in enumerate(stages(config, batch=2, accumulate=2, sharding=False)):
            train(data, alone[name], stage, resume=number > 0, device="cpu")
    held = [json.loads((root / f"held{rank}.json").read_text()) for rank in (0, 1)]
    return Trained(data, sharded, alone, held)
