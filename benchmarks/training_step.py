"""What a training step costs: in both precisions, with and without what makes it cheaper."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from statistics import median

import torch
from pairs import CPU, Given, Run, give_back_memory, in_rounds, shown, table, timed
from torch.optim.swa_utils import AveragedModel

from medsegdiff.benchmark.speed import config_for
from medsegdiff.benchmark.timing import in_turn, peak_memory
from medsegdiff.benchmark.training import TrainingConditions, phantom_stream, trainer_step, training_config
from medsegdiff.config.train import Precision
from medsegdiff.data.loader import as_batch, training_loader
from medsegdiff.models.base import build_model
from medsegdiff.nn.nbp_filter import NBPFilter, distinct_radii
from medsegdiff.training.optimisation import moving_average, parameter_groups

RELEASE = {64: 2.06, 128: 4.27}
"""Seconds of a training step of the authors' release, batch 2, on two cores of this kind in fp32; image size → s."""


def training(given: Given) -> list[str]:
    """Measure what a training step costs."""
    return [
        "",
        "## A training step",
        "",
        f"`{given.large}`, batch 2: forward and backward pass, clipping, AdamW, moving average. *Authors' release*: "
        "their code at 28b343f on two cores of the same kind, fp32.",
        "",
        *table(("side", "precision", "seconds", "authors' release, s", "ratio"), steps(given)),
        "",
        *table(("saving", "instead of", "with, s", "without, s", "without / with"), updates(given)),
        "",
        "Gradient checkpointing (`train.gradient_checkpointing`): the backward pass computes residual blocks anew. "
        "*Estimated*: kept per image for the backward pass at the preset's own size, as `data plan` reckons.",
        "",
        *table(
            ("preset", "side", "batch", "s, plain", "s, checkpointing", "peak MB, plain", "peak MB, checkpointing"),
            checkpointing(given),
        ),
    ]


def stepper(preset: str, size: int, batch: int, *, precision: Precision, checkpoints: bool = False) -> Run:
    """Make a training step ready."""
    conditions = TrainingConditions(size=size, batch=batch, steps=1, workers=0, precision=precision)
    config = training_config(preset, conditions)
    train = config.train.model_copy(update={"gradient_checkpointing": checkpoints})
    config = config.model_copy(update={"train": train})
    step = trainer_step(config, CPU)
    stream = phantom_stream(config, step.network.stride)
    return partial(step, as_batch(next(iter(training_loader(stream, config.train, start=0, num_batches=1)))))


def steps(given: Given) -> Iterator[tuple[str, ...]]:
    """Time whole steps in both precisions."""
    for size, theirs in RELEASE.items():
        precisions: tuple[Precision, ...] = ("fp32", "bf16")
        runs = {precision: stepper(given.large, size, 2, precision=precision) for precision in precisions}
        for run in runs.values():
            run()  # warm
        found = in_turn({name: partial(timed, run) for name, run in runs.items()}, given.repeats)
        for precision, seconds in found.items():
            ours = median(seconds)
            yield f"{size}", precision, f"{ours:.2f}", f"{theirs:.2f}", f"{ours / theirs:.2f}"


def updates(given: Given) -> Iterator[tuple[str, ...]]:
    """Time what a step does to the weights, and a filter of the SS-Former in training."""
    torch.manual_seed(0)
    model = build_model(config_for(given.large, 64))
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizers = [torch.optim.AdamW(parameter_groups(model, 0.01), lr=1e-9, fused=fused) for fused in (True, False)]
    on, off = (optimizer.step for optimizer in optimizers)
    on(), off()
    yield "AdamW, fused", "by operation", *in_rounds(on, off, given.repeats)
    average, plain = (
        AveragedModel(model, multi_avg_fn=moving_average(0.999, lambda: 9)),
        AveragedModel(model, avg_fn=lambda mean, value, _: 0.999 * mean + 0.001 * value),
    )
    runs = [partial(one.update_parameters, model) for one in (average, plain)]
    for run in runs * 2:
        run()
    yield "moving average, all weights at once", "one after the other", *in_rounds(*runs, given.repeats)
    nbp, embedding = NBPFilter(time_dim=256), torch.randn(2, 256)
    places = distinct_radii(16, 16, CPU)
    every = places[0][places[1].reshape(-1)]
    grid = torch.meshgrid(every, every, indexing="ij")
    on, off = (lambda: nbp(16, 16, embedding)), (lambda: nbp.at(*grid, embedding))
    on(), off()
    yield "NBP-Filter at distinct radii, 16 × 16 tokens", "at every pair", *in_rounds(on, off, given.repeats)


def checkpointing(given: Given) -> Iterator[tuple[str, ...]]:
    """Time steps with and without gradient checkpointing, and measure their memory."""
    for preset, size, batch in ((given.large, 128, 2), (given.preset, given.size, 4)):
        runs = [stepper(preset, size, batch, precision="auto", checkpoints=flag) for flag in (False, True)]
        for run in runs:
            run()  # moments and average get their memory
        grown = []
        for run in runs:
            give_back_memory()
            grown.append(peak_memory(run, CPU))
        plain, saving, _ = in_rounds(*runs, given.repeats)
        yield preset, str(size), str(batch), plain, saving, *(shown(peak, 1e6) for peak in grown)
