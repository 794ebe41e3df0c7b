"""Train in several processes, as `torchrun` starts them: a run, its resumption, and what each process holds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from torch.distributed.tensor import DTensor

from medsegdiff.config import Config
from medsegdiff.models.base import DiffusionModel
from medsegdiff.training import trainer
from medsegdiff.training.train import train


def held(model: DiffusionModel) -> int:
    """Count the numbers that this process holds of a network."""
    return sum(p.to_local().numel() if isinstance(p, DTensor) else p.numel() for p in model.parameters())


def main(data: str, runs: dict[str, list[dict[str, object]]]) -> None:
    """Train each run with each of its configurations, the later ones resuming; write what is held of what."""
    original = trainer.shard
    counts: list[tuple[int, int]] = []

    def counted(model: DiffusionModel, *args: object) -> None:
        whole = held(model)
        original(model, *args)  # type: ignore[arg-type]
        counts.append((held(model), whole))

    trainer.shard = counted  # type: ignore[assignment]
    for out, stages in runs.items():
        for number, values in enumerate(stages):
            config = Config.model_validate(values)
            outcome = train(data, out, config, resume=number > 0, device="cpu")
            assert outcome.step == config.train.max_steps, outcome
    rank = trainer.Accelerator(cpu=True).process_index
    (Path(data).parent / f"held{rank}.json").write_text(json.dumps(counts))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))
