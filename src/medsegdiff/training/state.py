"""The state of a training run on disk: what it takes to go on exactly where it stopped."""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import AveragedModel

from medsegdiff.errors import CheckpointError
from medsegdiff.io.atomic import flush, write_json


@dataclass
class Progress:
    """How far training has come. All randomness follows from the step: there is no more to remember of it."""

    step: int = 0
    """Optimizer steps done, skipped ones included."""
    best_dice: float = -1.0
    """Best validation Dice of the fused masks."""
    best_step: int = 0
    worse_validations: int = 0
    """Validations in a row without a better Dice."""
    skipped: int = 0
    """Steps skipped for a loss or gradient that was not finite."""
    skipped_in_row: int = 0


def states(folder: Path) -> list[Path]:
    """List the whole states of a run, oldest first.

    Args:
        folder: ``state/`` of the run.

    Returns:
        Folders ``step-…``.
    """
    return sorted(folder.glob("step-*")) if folder.is_dir() else []


def save_state(accelerator: Accelerator, folder: Path, ema: AveragedModel, progress: Progress) -> None:
    """Save weights, average, optimizer, random states and progress as one folder that appears when it is whole.

    Every process calls this. The previous state is removed last, so on any error it is still there.

    Args:
        accelerator: Holds model and optimizer.
        folder: ``state/`` of the run.
        ema: Averaged model.
        progress: How far training has come.

    Raises:
        CheckpointError: If it can't be written.
    """
    part, whole = folder / ".unfinished", folder / f"step-{progress.step:08d}"
    try:
        if accelerator.is_main_process:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(part))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            save_file({k: v.contiguous() for k, v in ema.module.state_dict().items()}, part / "average.safetensors")
            write_json(part / "progress.json", dataclasses.asdict(progress) | {"averaged": int(ema.n_averaged)})
            _publish(part, whole)
    except (OSError, RuntimeError) as error:
        shutil.rmtree(part, ignore_errors=True)
        kept = states(folder)
        survives = f"The checkpoint of {kept[-1].name} is unchanged" if kept else "There was no checkpoint before"
        raise CheckpointError(
            f"{whole}: the checkpoint can't be written ({error}). {survives}; free some space and resume."
        ) from error


def _publish(part: Path, whole: Path) -> None:
    """Make a state visible in one step, then remove older ones."""
    for file in part.iterdir():
        flush(file)
    shutil.rmtree(whole, ignore_errors=True)
    part.replace(whole)
    for old in states(whole.parent):
        if old != whole:
            shutil.rmtree(old, ignore_errors=True)


def load_state(accelerator: Accelerator, folder: Path, ema: AveragedModel) -> Progress:
    """Restore what `save_state` saved.

    Args:
        accelerator: Holds model and optimizer of the same architecture.
        folder: ``state/`` of the run.
        ema: Averaged model.

    Returns:
        How far training had come.

    Raises:
        CheckpointError: If there is no state, or it can't be read.
    """
    found = states(folder)
    if not found:
        raise CheckpointError(f"{folder}: there is no checkpoint to resume from. Train without --resume.")
    try:
        accelerator.load_state(str(found[-1]))
        ema.module.load_state_dict(load_file(found[-1] / "average.safetensors"))
        values = json.loads((found[-1] / "progress.json").read_text(encoding="utf-8"))
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{found[-1]}: the checkpoint can't be read ({error}).") from error
    ema.n_averaged.fill_(values.pop("averaged"))
    return Progress(**values)
