"""What is timed in turn: presets, and the reference beside them, built, warmed up and ready."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch

from medsegdiff.benchmark.nnunet_reference import FORWARDS, ReferenceUNet, planned_widths
from medsegdiff.benchmark.stages import Pass, timed_pass
from medsegdiff.benchmark.timing import peak_memory, stopwatch
from medsegdiff.config.load import load_preset
from medsegdiff.config.spec import ResolvedConfig, assumed
from medsegdiff.config.train import Precision
from medsegdiff.hardware import autocast
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.io.raster import write_picture
from medsegdiff.models.base import build_model

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
class Contestant:
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


@dataclass(frozen=True)
class Reference:
    """The network that the presets are compared with, ready to be timed."""

    run: Callable[[], float]
    """Makes all forward passes, one after the other, and gives the seconds."""
    precision: Precision
    memory: float | None = None
    """Bytes at the peak of a forward pass."""


def config_for(name: str, size: int) -> ResolvedConfig:
    """Read a preset, and say for what images: colour pictures with one structure."""
    about = ["data.channels=3", "data.task=binary", "data.classes=[structure]", f"data.image_size={size}"]
    return assumed(load_preset(name, about))


def random_picture(path: Path, size: int) -> Path:
    """Write a colour picture of random pixels."""
    write_picture(path, np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8))
    return path


def prepare_contestant(
    config: ResolvedConfig, conditions: Conditions, device: torch.device, picture: Path
) -> Contestant:
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
    few = Contestant(segmenter, steps, min(MADE_AT_LEAST, steps))
    passes: list[Pass] = []
    grown = peak_memory(lambda: passes.append(few.run(picture, conditions.members)), device)
    made = affordable(passes[0].each_step[-1], steps, repeats=conditions.repeats, patience=conditions.patience)
    return Contestant(segmenter, steps, made, with_weights(grown, segmenter.model))


def affordable(step: float, steps: int, *, repeats: int, patience: float) -> int:
    """Decide how many steps are made."""
    return min(steps, max(MADE_AT_LEAST, int(patience / (step * repeats))))


def prepare_reference(conditions: Conditions, device: torch.device) -> Reference:
    """Build the reference, warm it up, measure its memory and choose its precision and layout: the fastest."""
    net, image = reference_for(conditions.size)
    net, image = net.to(device).eval(), image.to(device)

    @torch.inference_mode()
    def forwards(precision: Precision, layout: torch.memory_format, count: int = FORWARDS) -> float:
        """Run the reference so many times; give the seconds."""
        net.to(memory_format=layout)  # type: ignore[call-overload]
        watch = stopwatch(device)
        with watch.stage("forwards"), autocast(precision, device):
            for _ in range(count):
                net(image)
        return watch.spans["forwards"][0]

    precisions: tuple[Precision, ...] = ("fp32", "bf16") if conditions.precision == "auto" else (conditions.precision,)
    layouts = (torch.contiguous_format, torch.channels_last)[: 1 if device.type == "mps" else 2]  # as `place`
    ways = list(product(precisions, layouts))
    grown = {way: peak_memory(partial(forwards, way[0], way[1], 1), device) for way in ways}
    chosen = min(ways, key=lambda way: forwards(way[0], way[1], 2))
    return Reference(partial(forwards, chosen[0], chosen[1]), chosen[0], with_weights(grown[chosen], net))


def reference_for(size: int) -> tuple[ReferenceUNet, torch.Tensor]:
    """Build the reference that is planned for images of a size."""
    net = ReferenceUNet(planned_widths(size))
    side = -(-size // net.stride) * net.stride
    return net, torch.rand(1, 3, side, side)


def with_weights(grown: float | None, net: torch.nn.Module) -> float | None:
    """Add what the weights take to what memory grew by."""
    weights = sum(p.numel() * p.element_size() for p in net.parameters())
    return None if grown is None else grown + weights
