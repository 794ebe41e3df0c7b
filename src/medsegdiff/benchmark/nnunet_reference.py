"""The network that speed is compared with: the 2-D UNet that nnU-Net plans for images of 256×256."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch

from medsegdiff.benchmark.timing import peak_memory, stopwatch, with_weights
from medsegdiff.config.data import next_multiple
from medsegdiff.config.run import Precision
from medsegdiff.hardware import autocast
from medsegdiff.models.nnunet import PlainUNet

FEWEST, MOST = 32, 512
"""Channels of the first stage, and at most."""
SMALLEST = 4
"""Pixels along the side of the last stage, at least."""
FORWARDS = 20
"""Of one image: five folds, each with the image and its three mirror images."""


def planned_widths(size: int) -> tuple[int, ...]:
    """Plan the stages: twice the channels on half the pixels each time, while four pixels remain along the side."""
    stages = 1 + max(2, int(math.log2(size / SMALLEST)))
    return tuple(min(MOST, FEWEST * 2**index) for index in range(stages))


def reference_for(size: int) -> tuple[PlainUNet, torch.Tensor]:
    """Build the reference that is planned for images of a size: at 256×256, 33.5 M parameters, 29.6 GFLOP a pass."""
    net = PlainUNet(3, 2, widths=planned_widths(size), deep_supervision=False)
    side = next_multiple(size, net.stride)
    return net, torch.rand(1, 3, side, side)


@dataclass(frozen=True)
class Reference:
    """The network that the presets are compared with, ready to be timed."""

    run: Callable[[], float]
    """Makes all forward passes, one after the other, and gives the seconds."""
    precision: Precision
    memory: float | None = None
    """Bytes at the peak of a forward pass."""


def prepare_reference(size: int, device: torch.device, *, precision: Precision) -> Reference:
    """Build the reference, warm it up, measure its memory and choose its precision and layout: the fastest."""
    net, image = reference_for(size)
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

    precisions: tuple[Precision, ...] = ("fp32", "bf16") if precision == "auto" else (precision,)
    layouts = (torch.contiguous_format, torch.channels_last)[: 1 if device.type == "mps" else 2]  # as `place`
    ways = list(product(precisions, layouts))
    grown = {way: peak_memory(partial(forwards, way[0], way[1], 1), device) for way in ways}
    chosen = min(ways, key=lambda way: forwards(way[0], way[1], 2))
    return Reference(partial(forwards, chosen[0], chosen[1]), chosen[0], with_weights(grown[chosen], net))
