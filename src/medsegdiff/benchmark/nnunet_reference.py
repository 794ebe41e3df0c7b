"""The network that speed is compared with: the 2-D UNet that nnU-Net plans for images of 256×256."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medsegdiff.benchmark.timing import peak_memory, stopwatch, with_weights
from medsegdiff.config.data import next_multiple
from medsegdiff.config.run import Precision
from medsegdiff.hardware import autocast

FEWEST, MOST = 32, 512
"""Channels of the first stage, and at most."""
SMALLEST = 4
"""Pixels along the side of the last stage, at least."""
FORWARDS = 20
"""Of one image: five folds, each with the image and its three mirror images."""


class ReferenceUNet(nn.Module):
    """A plain UNet: two convolutions per stage, strided on the way down, transposed on the way up.

    At 256×256 it has 33.5 M parameters and takes 29.6 GFLOP per forward pass.

    Source: Isensee et al. (2021), doi:10.1038/s41592-020-01008-z, methods, network architecture. Like theirs it has
    instance norm and leaky ReLU; the heads that are used in training alone are left out.
    """

    def __init__(self, widths: Sequence[int], *, image_channels: int = 3, num_classes: int = 2) -> None:
        super().__init__()
        self.stride = 2 ** (len(widths) - 1)
        self.down = nn.ModuleList(
            _stage(a, b, stride=1 if index == 0 else 2)
            for index, (a, b) in enumerate(pairwise([image_channels, *widths]))
        )
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairwise(widths))
        self.merge = nn.ModuleList(_stage(2 * width, width) for width in widths[:-1])
        self.head = nn.Conv2d(widths[0], num_classes, 1)

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """Segment."""
        features = [image]
        for down in self.down:
            features.append(down(features[-1]))
        x = features.pop()
        for level in reversed(range(len(self.up))):
            x = self.merge[level](torch.cat([self.up[level](x), features.pop()], dim=1))
        logits: Tensor = self.head(x)
        return logits


def planned_widths(size: int) -> tuple[int, ...]:
    """Plan the stages: twice the channels on half the pixels each time, while four pixels remain along the side."""
    stages = 1 + max(1, int(math.log2(size / SMALLEST)))
    return tuple(min(MOST, FEWEST * 2**index) for index in range(stages))


def _stage(in_channels: int, channels: int, *, stride: int = 1) -> nn.Sequential:
    """Make a stage: twice a 3×3 convolution, instance norm and leaky ReLU."""
    return nn.Sequential(*_block(in_channels, channels, stride), *_block(channels, channels, 1))


def _block(in_channels: int, channels: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1)
    return [convolution, nn.InstanceNorm2d(channels, affine=True), nn.LeakyReLU(0.01, inplace=True)]


def reference_for(size: int) -> tuple[ReferenceUNet, torch.Tensor]:
    """Build the reference that is planned for images of a size."""
    net = ReferenceUNet(planned_widths(size))
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
