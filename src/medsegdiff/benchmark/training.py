"""How fast presets train: the trainer's own steps, on the phantom, without validation and checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from medsegdiff.benchmark.timing import Meter, describe_machine, peak_memory, stopwatch
from medsegdiff.config.load import load_preset
from medsegdiff.config.run import Precision
from medsegdiff.config.spec import ResolvedConfig, assumed
from medsegdiff.data.loader import PreparedCases, TrainingStream, as_batch, training_loader
from medsegdiff.data.phantom import PhantomSource
from medsegdiff.hardware import pick_device, pick_precision
from medsegdiff.training.memory import step_memory
from medsegdiff.training.processes import fresh_state, make_accelerator
from medsegdiff.training.step import TrainingStep

WARM = 2
"""Steps before those that count: memory is asked for, workers start."""
CASES = 16
"""Pictures of the phantom that are trained on."""
DEFAULTS = ("v2-tiny",)
NOTES = (
    "step_seconds: median of whole steps: waiting for the batch, forward and backward pass, AdamW, moving average.",
    "waiting_share: of the time of all steps, what was spent waiting for batches of cases that are prepared already.",
    "peak_memory_gb: what memory grows by, weights included; estimated_memory_gb: what 'medsegdiff data plan' reckons "
    "with.",
    "Validation and checkpoints are left out. Gradients are not accumulated.",
)


@dataclass(frozen=True)
class TrainingConditions:
    """Under which training is measured."""

    size: int | None = None
    """Side of the images; ``None`` takes the preset's, here and below."""
    batch: int | None = None
    """Images per step."""
    steps: int = 10
    """That count."""
    workers: int | None = None
    """Processes that read and augment."""
    device: str | None = None
    """``None`` takes the best there is."""
    precision: Precision | None = None
    """``None`` takes the preset's."""


def measure_training(
    presets: Sequence[str], conditions: TrainingConditions, *, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Train presets for some steps, one after the other."""
    device = pick_device(conditions.device)
    configs = {name: training_config(name, conditions) for name in presets}
    wake_up(device)
    found = {}
    for name, config in configs.items():
        say(f"Training {name}: {config.train.max_steps} steps of {config.train.batch_size} images")
        found[name] = report_training(config, device)
    return {"machine": describe_machine(device), "presets": found, "notes": list(NOTES)}


def training_config(name: str, conditions: TrainingConditions) -> ResolvedConfig:
    """Read a preset, and change what the conditions ask for."""
    wanted = {
        "data.image_size": conditions.size,
        "train.batch_size": conditions.batch,
        "train.num_workers": conditions.workers,
        "train.precision": conditions.precision,
    }
    changes = [f"{key}={value}" for key, value in wanted.items() if value is not None]
    about = ["data.channels=1", "data.task=binary", "data.classes=[lesion]", f"train.max_steps={conditions.steps}"]
    return assumed(load_preset(name, [*about, *changes]))


def report_training(config: ResolvedConfig, device: torch.device) -> dict[str, Any]:
    """Train for some steps and tell what they cost."""
    train = config.train
    watch = stopwatch(device)
    grown = peak_memory(lambda: take_steps(config, device, watch), device)
    steps, waits = (watch.spans[stage][WARM:] for stage in ("step", "wait"))
    precision = pick_precision(train.precision, device)
    estimated = step_memory(config, precision=precision, device=device.type).of(train.batch_size)
    return {
        "size": config.data.image_size,
        "batch": train.batch_size,
        "workers": train.num_workers,
        "precision": precision,
        **rates(steps, waits, batch_size=train.batch_size),
        "peak_memory_gb": None if grown is None else grown / 1e9,
        "estimated_memory_gb": estimated / 1e9,
    }


def rates(steps: Sequence[float], waits: Sequence[float], *, batch_size: int) -> dict[str, Any]:
    """Sum the times of steps up."""
    return {
        "steps": len(steps),
        "images_per_second": batch_size * len(steps) / sum(steps),
        "step_seconds": median(steps),
        "waiting_share": sum(waits) / sum(steps),
    }


def phantom_stream(config: ResolvedConfig, stride: int) -> TrainingStream:
    """Prepare some cases of the phantom, so that they need not be read and resized later."""
    source = PhantomSource(config.data, counts=(CASES, 1, 1))
    cases = PreparedCases(source, config, stride=stride)
    names = source.info.items("train")
    for name in names:
        cases[name]
    return TrainingStream(cases, names, seed=config.train.seed, augment=config.data.augment)


def wake_up(device: torch.device) -> None:
    """Train a tiny network for a moment, so that no preset is charged with what the libraries load at first use."""
    tiny = training_config("v2-tiny", TrainingConditions(size=32, batch=1, steps=1, workers=0))
    narrow = tiny.model.model_copy(
        update={"condition_widths": (8, 8), "diffusion_widths": (8, 8), "anchor_levels": (0,)}
    )
    take_steps(tiny.model_copy(update={"model": narrow}), device, stopwatch(device))


def take_steps(
    config: ResolvedConfig,
    device: torch.device,
    watch: Meter[float],
    *,
    stream_of: Callable[[ResolvedConfig, int], TrainingStream] = phantom_stream,
) -> TrainingStep:
    """Let the trainer's step build a network and train it; ``stream_of`` makes samples that fit its stride."""
    step, total = trainer_step(config, device), WARM + config.train.max_steps
    stream = stream_of(config, step.network.stride)
    loader = training_loader(stream, config.train, start=0, num_batches=total + 1)  # accelerate loads one ahead
    batches = iter(step.accelerator.prepare(loader))
    for _ in range(total):
        with watch.stage("step"):
            with watch.stage("wait"):
                batch = as_batch(next(batches))
            step(batch)
    return step


def trainer_step(config: ResolvedConfig, device: torch.device) -> TrainingStep:
    """Make the trainer's step, without gradients of several batches: each is a step."""
    changes = {"accumulate": 1, "precision": pick_precision(config.train.precision, device)}
    config = config.model_copy(update={"train": config.train.model_copy(update=changes)})
    fresh_state(device.type)
    return TrainingStep(config, make_accelerator(config, None, device.type))
