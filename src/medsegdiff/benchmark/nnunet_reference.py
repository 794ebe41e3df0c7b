"""The network that speed is compared with: the 2-D UNet that nnU-Net plans for images of 256×256."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

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
            stage(a, b, stride=1 if index == 0 else 2)
            for index, (a, b) in enumerate(pairwise([image_channels, *widths]))
        )
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairwise(widths))
        self.merge = nn.ModuleList(stage(2 * width, width) for width in widths[:-1])
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


def stage(in_channels: int, channels: int, *, stride: int = 1) -> nn.Sequential:
    """Make a stage: twice a 3×3 convolution, instance norm and leaky ReLU."""
    return nn.Sequential(*_block(in_channels, channels, stride), *_block(channels, channels, 1))


def _block(in_channels: int, channels: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1)
    return [convolution, nn.InstanceNorm2d(channels, affine=True), nn.LeakyReLU(0.01, inplace=True)]
