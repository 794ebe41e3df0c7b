"""How fast presets train: steps as the trainer makes them, on the phantom, without validation and checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel

from medsegdiff.benchmark.machine import describe_machine
from medsegdiff.benchmark.timing import Meter, peak_memory, stopwatch
from medsegdiff.config.load import load_preset
from medsegdiff.config.spec import ResolvedConfig, assumed
from medsegdiff.config.train import Precision
from medsegdiff.data.loader import PreparedCases, TrainingStream, as_batch, training_loader
from medsegdiff.data.phantom import PhantomSource
from medsegdiff.hardware import autocast, pick_device, pick_precision
from medsegdiff.models.base import build_model
from medsegdiff.nn.blocks import recompute
from medsegdiff.training.distillation import objective_of
from medsegdiff.training.memory import step_memory
from medsegdiff.training.optimisation import moving_average, parameter_groups
from medsegdiff.types import Batch

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


def wake_up(device: torch.device) -> None:
    """Train a tiny network for a moment, so that no preset is charged with what the libraries load at first use."""
    tiny = training_config("v2-tiny", TrainingConditions(size=32, batch=1, steps=1, workers=0))
    narrow = tiny.model.model_copy(
        update={"condition_widths": (8, 8), "diffusion_widths": (8, 8), "anchor_levels": (0,)}
    )
    take_steps(tiny.model_copy(update={"model": narrow}), device, stopwatch(device))


def take_steps(config: ResolvedConfig, device: torch.device, watch: Meter[float]) -> None:
    """Build a network and train it, as the trainer does."""
    torch.manual_seed(config.train.seed)
    step = make_step(config, device)
    total = WARM + config.train.max_steps
    loader = training_loader(phantom_stream(config), config.train, start=0, num_batches=total)
    batches = iter(loader)
    for _ in range(total):
        with watch.stage("step"):
            with watch.stage("wait"):
                batch = as_batch(next(batches))
            step(batch)


def phantom_stream(config: ResolvedConfig) -> TrainingStream:
    """Prepare some cases of the phantom, so that they need not be read and resized later."""
    source = PhantomSource(config.data, counts=(CASES, 1, 1))
    stride = build_stride(config)
    cases = PreparedCases(source, config, stride=stride)
    names = source.info.items("train")
    for name in names:
        cases[name]
    return TrainingStream(cases, names, seed=config.train.seed, augment=config.data.augment)


def build_stride(config: ResolvedConfig) -> int:
    """Ask a network of what its images' sides must be multiples."""
    with torch.device("meta"):
        return build_model(config).stride


def make_step(config: ResolvedConfig, device: torch.device) -> Callable[[Batch], None]:
    """Build all that a training step needs."""
    train = config.train
    model = build_model(config).to(device).train()
    if train.gradient_checkpointing:
        recompute(model)
    optimizer = torch.optim.AdamW(parameter_groups(model, train.weight_decay), lr=train.learning_rate, fused=True)
    average = AveragedModel(model, multi_avg_fn=moving_average(train.ema_decay, lambda: 0))
    objective = objective_of(config, device)

    def step(batch: Batch) -> None:
        """Take one step of the optimiser."""
        moved = Batch(batch.image.to(device), batch.mask.to(device), batch.positions)
        with autocast(train.precision, device):
            loss = objective(model, moved).total
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), train.max_grad_norm or float("inf"))
        optimizer.step()
        average.update_parameters(model)
        optimizer.zero_grad()

    return step
