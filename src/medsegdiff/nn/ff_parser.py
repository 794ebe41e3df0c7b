"""The parts of the first MedSegDiff: the FF-Parser, and the UNet that encodes the image."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn
from torch.nn import functional as F

from medsegdiff.nn.blocks import full_precision
from medsegdiff.nn.unet import Modulate, unchanged


class FFParser(nn.Module):
    """Weighs each frequency of each channel, so that noise can be told from structure.

    The filter is kept for one size. For another it is interpolated over frequency in cycles per pixel, which keeps
    what it does to structures of a given size in pixels; at its own size it is taken as it is. It starts next to the
    identity.

    Source: Wu et al. (2024), MedSegDiff, MIDL, section FF-Parser.
    """

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.weight = nn.Parameter(torch.zeros(channels, size[0], size[1] // 2 + 1, 2))
        nn.init.normal_(self.weight, std=0.02)
        with torch.no_grad():
            self.weight[..., 0] += 1

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Filter, in float32 under any autocast."""
        h, w = x.shape[-2:]
        with full_precision(x):
            spectrum = torch.fft.rfft2(x.float(), norm="ortho")
            weight = torch.view_as_complex(self.weight.float().contiguous())
            parsed: Tensor = torch.fft.irfft2(spectrum * fit_filter(weight, self.size, (h, w)), s=(h, w), norm="ortho")
        return parsed


def fit_filter(
    weight: Complex[Tensor, "c f g"], kept: tuple[int, int], wanted: tuple[int, int]
) -> Complex[Tensor, "c f2 g2"]:
    """Interpolate a filter, given for features of one size, for features of another.

    Linear in both frequencies; over the rows, whose frequencies are periodic, also across ±½ cycles per pixel.

    Args:
        weight: By channel, row frequency (in the order of the FFT) and column frequency (not negative).
        kept: Height and width that the filter is for.
        wanted: Height and width of the features.

    Returns:
        The filter for these; the same one where the sizes agree.
    """
    if kept == wanted:
        return weight
    rows = torch.fft.fftfreq(wanted[0], device=weight.device) % 1 * kept[0]
    columns = torch.fft.rfftfreq(wanted[1], device=weight.device) * kept[1]
    periodic = torch.cat([weight, weight[:, :1]], dim=1)
    return _lerp(_lerp(periodic, rows, dim=1), columns, dim=2)


def _lerp(values: Tensor, at: Float[Tensor, " n"], *, dim: int) -> Tensor:
    """Interpolate linearly between entries."""
    low = at.floor().long().clamp(max=values.shape[dim] - 2)
    part = (at - low).reshape([-1 if axis == dim else 1 for axis in range(values.ndim)])
    return values.index_select(dim, low) * (1 - part) + values.index_select(dim, low + 1) * part


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
