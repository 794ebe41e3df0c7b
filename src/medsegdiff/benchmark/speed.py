"""How fast presets segment, beside as many forward passes as nnU-Net makes for an image."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from medsegdiff.benchmark.flops import Operations, Pass, counted_pass, operations, timed_pass
from medsegdiff.benchmark.nnunet_reference import FORWARDS, Reference, prepare_reference, reference_for
from medsegdiff.benchmark.timing import describe_machine, in_turn, peak_memory, with_weights
from medsegdiff.config.load import load_preset, preset_names
from medsegdiff.config.run import Precision
from medsegdiff.config.spec import ResolvedConfig, assumed
from medsegdiff.hardware import pick_device, pick_precision
from medsegdiff.inference.resources import is_compiled
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.io.raster import write_picture
from medsegdiff.models.base import build_model

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
MADE_AT_LEAST = 2
"""Steps, where there is no time for all."""


@dataclass(frozen=True)
class Conditions:
    """Under which speed is measured."""

    size: int = 256
    """Side of the image."""
    members: int = 10
    """Of the ensemble."""
    steps: int | None = None
    """Of the sampler; ``None`` takes the preset's."""
    repeats: int = 3
    """How often each is run, in turn."""
    device: str | None = None
    """``None`` takes the best there is."""
    precision: Precision = "auto"
    """With ``auto`` the reference takes the faster of fp32 and bf16; it always takes the faster layout."""
    patience: float = 60.0
    """Seconds for all repeats of a preset beyond which only its first steps are made."""
    compiled: bool = False
    """Whether the presets' steps are compiled; the reference is not."""


@dataclass(frozen=True)
class Candidate:
    """A preset's network, ready to be timed."""

    segmenter: Segmenter
    steps: int
    """Of the sampler."""
    made: int
    """Steps that are really made; fewer where they take long."""
    memory: float | None = None
    """Bytes at the peak of a pass; ``None`` where the system does not tell."""

    def run(self, picture: Path, members: int) -> Pass:
        """Segment a picture into a folder that is thrown away."""
        with tempfile.TemporaryDirectory(prefix="medsegdiff-speed-") as out:
            return timed_pass(self.segmenter, picture, Path(out), members=members, made=self.made, steps=self.steps)


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
        reference = prepare_reference(conditions.size, device, precision=conditions.precision)
        candidates = {}
        for name, config in configs.items():
            say(f"Warming up: {name}")
            candidates[name] = prepare_candidate(config, conditions, device, picture)
        say(f"Measuring in turn, rounds: {conditions.repeats}; reference, {', '.join(presets)}")
        seconds, passes = race(reference, candidates, conditions, picture)
    precision = pick_precision(conditions.precision, device)
    return {
        "machine": describe_machine(device),
        "conditions": {"size": conditions.size, "members": conditions.members, "repeats": conditions.repeats},
        "reference": report_reference(reference, seconds, conditions.size),
        "presets": {
            name: {"precision": precision, "compiled": is_compiled(candidates[name].segmenter.model)}
            | report_preset(configs[name], candidates[name], passes[name], seconds, members=conditions.members)
            for name in configs
        },
        "notes": list(NOTES),
    }


def config_for(name: str, size: int) -> ResolvedConfig:
    """Read a preset, and say for what images: colour pictures with one structure."""
    about = ["data.channels=3", "data.task=binary", "data.classes=[structure]", f"data.image_size={size}"]
    return assumed(load_preset(name, about))


def random_picture(path: Path, size: int) -> Path:
    """Write a colour picture of random pixels."""
    write_picture(path, np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8))
    return path


def prepare_candidate(config: ResolvedConfig, conditions: Conditions, device: torch.device, picture: Path) -> Candidate:
    """Build a network, warm it up, measure its memory, and decide how many steps there is time for."""
    steps = conditions.steps or config.sampling.steps
    torch.manual_seed(0)
    segmenter = Segmenter(
        build_model(config),
        config,
        device=str(device),
        precision=conditions.precision,
        compiled=conditions.compiled,
    )
    few = Candidate(segmenter, steps, min(MADE_AT_LEAST, steps))
    passes: list[Pass] = []
    grown = peak_memory(lambda: passes.append(few.run(picture, conditions.members)), device)
    made = affordable(passes[0].each_step[-1], steps, repeats=conditions.repeats, patience=conditions.patience)
    return Candidate(segmenter, steps, made, with_weights(grown, segmenter.model))


def affordable(step: float, steps: int, *, repeats: int, patience: float) -> int:
    """Decide how many steps are made."""
    return min(steps, max(MADE_AT_LEAST, int(patience / (step * repeats))))


def race(
    reference: Reference, candidates: Mapping[str, Candidate], conditions: Conditions, picture: Path
) -> tuple[list[float], dict[str, list[Pass]]]:
    """Run the reference and the candidates in turn."""
    runs: dict[str, Callable[[], Any]] = {REFERENCE: reference.run}
    runs |= {name: partial(one.run, picture, conditions.members) for name, one in candidates.items()}
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
    config: ResolvedConfig, candidate: Candidate, passes: Sequence[Pass], reference: Sequence[float], *, members: int
) -> dict[str, Any]:
    """Tell what a preset costs."""
    counted = counted_pass(config, members=members, steps=candidate.steps)
    total = Operations(*np.sum([[o.counted, o.fft, o.elementwise] for o in counted.values()], axis=0) / 1e9)
    return {
        "parameters": sum(p.numel() for p in candidate.segmenter.model.parameters()),
        "members": members,
        "steps": candidate.steps,
        "gflop": total.counted,
        "gflop_estimated": {"fft": total.fft, "elementwise": total.elementwise},
        "seconds": median(p.seconds for p in passes),
        "ratio": median(p.seconds / r for p, r in zip(passes, reference, strict=True)),
        "images_per_second": median(1 / (p.read + p.seconds - p.tables + p.write) for p in passes),
        "extrapolated": candidate.made < candidate.steps,
        "steps_made": candidate.made,
        "stages": report_stages(counted, passes),
        "peak_memory_gb": _gb(candidate.memory),
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
