"""The plain UNet that looks at the image in the networks that the authors of MedSegDiff released."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from medsegdiff.nn.blocks import full_precision
from medsegdiff.nn.unet import Modulate, unchanged


class NormedConv(nn.Sequential):
    """3×3 convolution, batch normalisation, leaky ReLU; in training, whole channels are dropped before the norm."""

    def __init__(self, in_channels: int, out_channels: int, *, dropout: float = 0.0) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
            nn.Dropout2d(dropout),
            nn.BatchNorm2d(out_channels),
            nn.LeakyReLU(0.01),
        )


class ContextUNet(nn.Module):
    """Looks at the image, and segments it.

    Level l has the resolution of the image divided by 2^l; below the last level lies the bottleneck.

    Source: the description of the authors' released code; its plan is nnU-Net's (Isensee et al., 2021), with batch
    normalisation and bilinear upsampling.
    """

    def __init__(self, image_channels: int, mask_channels: int, *, widths: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Sequential(NormedConv(a, b, dropout=dropout), NormedConv(b, b, dropout=dropout))
            for a, b in pairwise([image_channels, *widths])
        )
        last = widths[-1]
        self.bottleneck = nn.Sequential(*(NormedConv(last, last, dropout=dropout) for _ in range(2)))
        self.up = nn.ModuleList(
            nn.Sequential(NormedConv(2 * width, width), NormedConv(width, finer))
            for finer, width in pairwise([widths[0], *widths])
        )
        self.head = nn.Conv2d(widths[0], mask_channels, 1, bias=False)

    def encode(
        self, image: Float[Tensor, "b c h w"], *, modulate: Modulate = unchanged
    ) -> tuple[Float[Tensor, "b d eh ew"], list[Tensor]]:
        """Go down.

        Args:
            image: Normalised image.
            modulate: What is done to what enters each level but the first, given the level.

        Returns:
            Features of the bottleneck; those of each level before its halving, finest first.
        """
        skips, x = [], image
        for index, level in enumerate(self.levels):
            x = level(modulate(index, x) if index else x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        return self.bottleneck(x), skips

    def decode(self, bottom: Float[Tensor, "b d eh ew"], skips: Sequence[Tensor]) -> list[Tensor]:
        """Go up.

        Args:
            bottom: Features of the bottleneck.
            skips: From `encode`.

        Returns:
            Features by level, finest first; each as wide as the level above it.
        """
        features: list[Tensor] = []
        x = bottom
        for level, skip in zip(reversed(self.up), reversed(skips), strict=True):
            x = level(torch.cat([F.interpolate(x, scale_factor=2.0, mode="bilinear"), skip], dim=1))
            features.insert(0, x)
        return features

    def maps(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """Segment, in full precision.

        Args:
            features: Of the finest level, from `decode`.

        Returns:
            Logits.
        """
        with full_precision(features):
            logits: Tensor = self.head(features.float())
        return logits
