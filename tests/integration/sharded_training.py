"""Train in several processes, as `torchrun` starts them: runs, what resumes them, what each process holds of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.distributed.tensor import DTensor

from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.models.base import DiffusionModel
from medsegdiff.training import sharding
from medsegdiff.training.train import train
from tests.program import call


def held(model: DiffusionModel) -> int:
    """Count the numbers that this process holds of a network."""
    return sum(p.to_local().numel() if isinstance(p, DTensor) else p.numel() for p in model.parameters())


def main(data: str, runs: dict[str, list[dict[str, object] | list[str]]]) -> None:
    """Train each run with each of its configurations, the later ones resuming; write what is held of each network.

    A list in the place of a configuration is a command line.
    """
    original, counts = sharding.shard, list[tuple[int, int]]()

    def counted(model: DiffusionModel, accelerator: Accelerator) -> None:
        whole = held(model)
        original(model, accelerator)
        counts.append((held(model), whole))

    sharding.shard = counted
    Accelerator.end_training = lambda self: None  # processes that part can't be sure to find each other again
    for out, stages in runs.items():
        for number, stage in enumerate(stages):
            if isinstance(stage, list):
                assert call(*stage) == 0, stage
                continue
            config = ResolvedConfig.model_validate(stage)
            outcome = train(data, out, config, resume=number > 0, device="cpu")
            assert outcome.step == config.train.max_steps, outcome
    (Path(data).parent / f"held{torch.distributed.get_rank()}.json").write_text(json.dumps(counts))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))
