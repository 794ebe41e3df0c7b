"""The UNet as it was published, with batch norm: double convolutions, maxima on the way down, skips on the way up."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class DoubleConvolution(nn.Sequential):
    """Twice a 3×3 convolution with bias, batch norm and ReLU.

    Source: Ronneberger et al. (2015), U-Net, section 2; the norm is later custom.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        for width in (in_channels, out_channels):
            self.extend((nn.Conv2d(width, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels), nn.ReLU()))


class ClassicEncoder(nn.ModuleList):
    """The way down: features at each level, each half as fine as the one before."""

    def __init__(self, in_channels: int, widths: Sequence[int]) -> None:
        super().__init__(DoubleConvolution(a, b) for a, b in pairwise((in_channels, *widths)))

    def forward(self, image: Float[Tensor, "b c h w"]) -> list[Tensor]:
        """Encode.

        Args:
            image: Height and width can be halved at each level but the first.

        Returns:
            Features by level, finest first.
        """
        first, *others = self
        features = [first(image)]
        for level in others:
            features.append(level(F.max_pool2d(features[-1], 2)))
        return features


class ClassicDecoder(nn.Module):
    """The way up: transposed convolutions, each beside the features of its level, and a 1×1 convolution."""

    def __init__(self, widths: Sequence[int], out_channels: int) -> None:
        super().__init__()
        steps = list(pairwise(reversed(widths)))
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in steps)
        self.levels = nn.ModuleList(DoubleConvolution(2 * b, b) for _, b in steps)
        self.head = nn.Conv2d(widths[0], out_channels, 1)

    def forward(
        self, features: Sequence[Tensor], gate: Float[Tensor, "b 1 h w"] | None = None
    ) -> Float[Tensor, "b k h w"]:
        r"""Decode.

        With a gate :math:`g`, features become :math:`c + c \cdot g` at each level but the finest; of the gate the first
        pixel of each cell counts.

        Args:
            features: By level, finest first.
            gate: In [0, 1], at full resolution.

        Returns:
            Logits.
        """
        *skips, x = features
        for up, level in zip(self.up, self.levels, strict=True):
            x = level(torch.cat([up(x), skips.pop()], dim=1))
            if gate is not None and skips:
                cell = 2 ** len(skips)
                x = x + x * gate[..., ::cell, ::cell]
        logits: Tensor = self.head(x)
        return logits
