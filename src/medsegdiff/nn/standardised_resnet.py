"""The ResNet under hybrid vision transformers: weights are standardised, features normalised by group."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

EXPANSION = 4
"""Channels of a stage over the width of its bottlenecks."""


class StandardisedConv2d(nn.Conv2d):
    """A convolution whose kernels, one by one, have mean 0 and variance 1 over what they take in.

    Source: Qiao et al. (2019), Weight Standardization, arXiv:1903.10520, equations 1 and 2.
    """

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """Convolve."""
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True, correction=0)
        weight = (self.weight - mean) * torch.rsqrt(variance + 1e-5)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


def standardised(in_channels: int, out_channels: int, kernel: int, *, stride: int = 1) -> StandardisedConv2d:
    """Make such a convolution, padded, without bias."""
    return StandardisedConv2d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=False)


def _norm(channels: int) -> nn.GroupNorm:
    """Normalise in 32 groups, or fewer where these would not divide the channels."""
    return nn.GroupNorm(math.gcd(32, channels), channels, eps=1e-6)


class Bottleneck(nn.Module):
    """Three convolutions and a way around them; the norm comes after a convolution, the last ReLU after the sum.

    Source: Chen et al. (2021), TransUNet, arXiv:2102.04306, section 3, and its released code.
    """

    def __init__(self, in_channels: int, width: int, *, stride: int = 1) -> None:
        super().__init__()
        out_channels = EXPANSION * width
        self.conv1, self.gn1 = standardised(in_channels, width, 1), _norm(width)
        self.conv2, self.gn2 = standardised(width, width, 3, stride=stride), _norm(width)
        self.conv3, self.gn3 = standardised(width, out_channels, 1), _norm(out_channels)
        self.downsample: nn.Module = nn.Identity()
        self.gn_proj: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            self.downsample = standardised(in_channels, out_channels, 1, stride=stride)
            self.gn_proj = nn.GroupNorm(out_channels, out_channels)  # each channel by itself

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """Apply the block."""
        h = F.relu(self.gn1(self.conv1(x)))
        h = F.relu(self.gn2(self.conv2(h)))
        return F.relu(self.gn3(self.conv3(h)) + self.gn_proj(self.downsample(x)))


class StandardisedResNet(nn.Module):
    """A ResNet-50 in this manner, without its last stage: features by grid.

    The pooling after the stem has no padding, so what the first stage sees is a pixel short of a quarter of the image,
    and is filled up with zeros, below and to the right, only where it leaves as features. Parts are called as in the
    authors' files of weights.

    Source: Dosovitskiy et al. (2021), section 3.1, hybrid architecture; Chen et al. (2021), TransUNet, section 3.

    Args:
        image_channels: Of the image.
        width: Channels of the stem; bottlenecks have the same width, and twice as much in each further stage.
        blocks: Bottlenecks by stage; each stage but the first halves the grid.
    """

    def __init__(self, image_channels: int, *, width: int = 64, blocks: Sequence[int] = (3, 4, 9)) -> None:
        super().__init__()
        self.root, self.body = nn.Sequential(), nn.ModuleDict()
        self.root.add_module("conv", standardised(image_channels, width, 7, stride=2))
        self.root.add_module("gn", _norm(width))
        self.channels = [width]
        """Of the features, finest first."""
        for level, count in enumerate(blocks):
            inner, stage = width * 2**level, nn.Sequential()
            for number in range(1, count + 1):
                given, stride = (EXPANSION * inner, 1) if number > 1 else (self.channels[-1], 1 if level == 0 else 2)
                stage.add_module(f"unit{number}", Bottleneck(given, inner, stride=stride))
            self.body[f"block{level + 1}"] = stage
            self.channels.append(EXPANSION * inner)

    def forward(self, image: Float[Tensor, "b c h w"]) -> list[Tensor]:
        """Encode.

        Args:
            image: Normalised image; height and width are multiples of the stride.

        Returns:
            Features after the stem (half as fine as the image) and after each stage, finest first.
        """
        features = [F.relu(self.root(image))]
        x = F.max_pool2d(features[0], 3, stride=2)
        for stage in self.body.values():
            x = stage(x)
            h, w = (-(-size // 2) for size in features[-1].shape[-2:])
            features.append(F.pad(x, (0, w - x.shape[-1], 0, h - x.shape[-2])))
        return features
