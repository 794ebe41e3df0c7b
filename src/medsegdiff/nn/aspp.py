"""Atrous spatial pyramid pooling: the same features looked at from several distances at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from medsegdiff.nn.blocks import conv_norm_relu


class NormOfBatch(nn.BatchNorm2d):
    """Batch norm of one vector per image.

    A single image has no variance: in training with such a batch the running mean and variance stand in.
    """

    def forward(self, x: Float[Tensor, "b c 1 1"]) -> Float[Tensor, "b c 1 1"]:
        """Normalise."""
        if self.training and len(x) == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


class ASPP(nn.Module):
    """Dilated convolutions of several reaches and the mean over the image, side by side, then mixed.

    A 1×1 convolution, a 3×3 convolution for each dilation, and the mean over the image through a 1×1 convolution,
    the same everywhere (so that it does not matter how the grid is
    filled with it); all with batch norm and ReLU, concatenated in this order, and a 1×1 convolution with batch
    norm and ReLU over them.

    Source: Chen et al. (2017), Rethinking Atrous Convolution for Semantic Image Segmentation, section 3.3.

    Args:
        in_channels: Of the features.
        width: Channels of each branch, and of what is given.
        dilations: Of the 3×3 convolutions.
        bias: Whether convolutions have biases, though a norm follows.
    """

    def __init__(
        self, in_channels: int, width: int = 256, *, dilations: Sequence[int] = (6, 12, 18), bias: bool = False
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList([conv_norm_relu(in_channels, width, 1, bias=bias)])
        self.branches.extend(conv_norm_relu(in_channels, width, 3, dilation=each, bias=bias) for each in dilations)
        self.pooled = nn.Sequential(nn.Conv2d(in_channels, width, 1, bias=bias), NormOfBatch(width), nn.ReLU())
        self.mix = conv_norm_relu((len(dilations) + 2) * width, width, 1, bias=bias)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """Look from all distances.

        Args:
            x: Features.

        Returns:
            As many channels as ``width``, on the same grid.
        """
        mean = self.pooled(x.mean(dim=(-2, -1), keepdim=True)).expand(-1, -1, *x.shape[-2:])
        mixed: Tensor = self.mix(torch.cat([*(branch(x) for branch in self.branches), mean], dim=1))
        return mixed
