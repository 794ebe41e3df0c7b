"""How fast presets segment, beside as many forward passes as nnU-Net makes for an image."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from medsegdiff.benchmark.contestants import (
    Conditions,
    Contestant,
    Reference,
    config_for,
    prepare_contestant,
    prepare_reference,
    random_picture,
    reference_for,
)
from medsegdiff.benchmark.flops import Operations, operations
from medsegdiff.benchmark.machine import describe_machine
from medsegdiff.benchmark.nnunet_reference import FORWARDS
from medsegdiff.benchmark.stages import Pass, counted_pass
from medsegdiff.benchmark.timing import in_turn
from medsegdiff.config.load import preset_names
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.hardware import pick_device, pick_precision
from medsegdiff.inference.resources import is_compiled

WANTED = ("v2-fast", "v2")
NOTES = (
    "seconds: one image from pixels to the fused segmentation, tables of the NBP-Filters included; read and write "
    "come on top.",
    f"ratio: seconds over those of {FORWARDS} forward passes of the reference beside it, median over the repeats.",
    "images_per_second: of a run of many images with files, which tabulates the NBP-Filters once.",
    "gflop: of convolutions and matrix products, a multiplication with an addition counting as two; gflop_estimated "
    "(Fourier transforms, what is done value by value) comes on top. Fusion is not counted.",
    "peak_memory_gb: weights, and what memory grows by while an image is segmented.",
    "extrapolated: only steps_made of the steps were made; the others are taken to last as long as their mean.",
    "Weights and pixels are random: members then hardly agree, and STAPLE may take longer than with a trained network.",
)


REFERENCE = ""
"""Name of the reference among the presets, none of which is called so."""


def default_presets() -> list[str]:
    """Name the presets that are measured where none are named."""
    return [name for name in WANTED if name in preset_names()]


def measure_speed(
    presets: Sequence[str], conditions: Conditions, *, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Measure untrained presets on a random image beside the reference, A B A B."""
    device = pick_device(conditions.device)
    configs = {name: config_for(name, conditions.size) for name in presets}
    with tempfile.TemporaryDirectory(prefix="medsegdiff-speed-") as folder:
        picture = random_picture(Path(folder) / "random.png", conditions.size)
        say("Warming up: reference")
        reference = prepare_reference(conditions, device)
        contestants = {}
        for name, config in configs.items():
            say(f"Warming up: {name}")
            contestants[name] = prepare_contestant(config, conditions, device, picture)
        say(f"Measuring in turn, rounds: {conditions.repeats}; reference, {', '.join(presets)}")
        seconds, passes = race(reference, contestants, conditions, picture)
    precision = pick_precision(conditions.precision, device)
    return {
        "machine": describe_machine(device),
        "conditions": {"size": conditions.size, "members": conditions.members, "repeats": conditions.repeats},
        "reference": report_reference(reference, seconds, conditions.size),
        "presets": {
            name: {"precision": precision, "compiled": is_compiled(contestants[name].segmenter.model)}
            | report_preset(configs[name], contestants[name], passes[name], seconds, members=conditions.members)
            for name in configs
        },
        "notes": list(NOTES),
    }


def race(
    reference: Reference, contestants: Mapping[str, Contestant], conditions: Conditions, picture: Path
) -> tuple[list[float], dict[str, list[Pass]]]:
    """Run the reference and the contestants in turn."""
    runs: dict[str, Callable[[], Any]] = {REFERENCE: reference.run}
    runs |= {name: partial(one.run, picture, conditions.members) for name, one in contestants.items()}
    results = in_turn(runs, conditions.repeats)
    return results.pop(REFERENCE), results


def report_reference(reference: Reference, seconds: Sequence[float], size: int) -> dict[str, Any]:
    """Tell what the reference costs."""
    with torch.device("meta"):
        net, image = reference_for(size)
    one = operations(lambda: net(image)).counted / 1e9
    return {
        "parameters": sum(p.numel() for p in net.parameters()),
        "forwards": FORWARDS,
        "gflop_per_forward": one,
        "gflop": FORWARDS * one,
        "seconds": median(seconds),
        "precision": reference.precision,
        "peak_memory_gb": _gb(reference.memory),
    }


def report_preset(
    config: ResolvedConfig, contestant: Contestant, passes: Sequence[Pass], reference: Sequence[float], *, members: int
) -> dict[str, Any]:
    """Tell what a preset costs."""
    counted = counted_pass(config, members=members, steps=contestant.steps)
    total = Operations(*np.sum([[o.counted, o.fft, o.elementwise] for o in counted.values()], axis=0) / 1e9)
    return {
        "parameters": sum(p.numel() for p in contestant.segmenter.model.parameters()),
        "members": members,
        "steps": contestant.steps,
        "gflop": total.counted,
        "gflop_estimated": {"fft": total.fft, "elementwise": total.elementwise},
        "seconds": median(p.seconds for p in passes),
        "ratio": median(p.seconds / r for p, r in zip(passes, reference, strict=True)),
        "images_per_second": median(1 / (p.read + p.seconds - p.tables + p.write) for p in passes),
        "extrapolated": contestant.made < contestant.steps,
        "steps_made": contestant.made,
        "stages": report_stages(counted, passes),
        "peak_memory_gb": _gb(contestant.memory),
    }


def report_stages(counted: Mapping[str, Operations], passes: Sequence[Pass]) -> dict[str, dict[str, Any]]:
    """Tell what each stage of a preset costs."""
    stages: dict[str, dict[str, Any]] = {
        name: {"seconds": median(getattr(p, name) for p in passes)}
        for name in ("read", "condition", "tables", "steps", "fuse", "other", "write")
    }
    for name, took in counted.items():
        stages[name]["gflop"] = took.counted / 1e9
    stages["steps"]["each"] = np.median([p.each_step for p in passes], axis=0).tolist()
    return stages


def _gb(memory: float | None) -> float | None:
    return None if memory is None else memory / 1e9
