"""MobileNetV2 as an encoder of DeepLab: inverted residuals, the last of them dilated instead of strided."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

STRIDES = (1, 2, 2, 2, 1, 1, 1)
"""Of the stages, after a stem with stride 2: the last but one would halve the grid once more, and keeps it."""
DILATIONS = (1, 1, 1, 1, 1, 1, 2)
"""Of the depthwise convolutions of the stages."""
EXPANSIONS = (1, 6, 6, 6, 6, 6, 6)
"""By how much the blocks of a stage widen their input."""
LOW = 2
"""Stages that lead to the features at a fourth of the resolution."""


class InvertedResidual(nn.Module):
    """Widens the channels, looks around in each by itself, and narrows them again; added to its input if it can be.

    Deviation from MobileNetV2, as in BEAL's code: what surrounds the block's input is filled with zeros before the
    channels are widened, not after it. Norm and ReLU6 make other values of those zeros.

    Source: Sandler et al. (2018), MobileNetV2, section 3.3 and table 1.

    Args:
        in_channels: Of the input.
        out_channels: Of the output.
        expansion: By how much the channels are widened; 1 leaves that out.
        stride: By which the grid gets coarser.
        dilation: Distance between the taps of the 3×3 convolution, in pixels.
    """

    def __init__(self, in_channels: int, out_channels: int, *, expansion: int, stride: int, dilation: int) -> None:
        super().__init__()
        wide = expansion * in_channels
        widen = [nn.Conv2d(in_channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()]
        self.conv = nn.Sequential(
            *(widen if expansion > 1 else ()),
            nn.Conv2d(wide, wide, 3, stride=stride, dilation=dilation, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU6(),
            nn.Conv2d(wide, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.around = (dilation,) * 4
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """Apply the block."""
        out: Tensor = self.conv(F.pad(x, self.around))
        return x + out if self.residual else out


class MobileNetV2(nn.Module):
    """The stem and the seven stages of MobileNetV2, with torchvision's names of weights, 16 times coarser at the end.

    Source: Sandler et al. (2018), MobileNetV2, table 2; stride 16 as in section 6.3.

    Args:
        image_channels: Of the image.
        widths: Channels of the stem and of the stages; there may be fewer than seven.
        blocks: In each stage.
    """

    def __init__(self, image_channels: int, *, widths: Sequence[int], blocks: Sequence[int]) -> None:
        super().__init__()
        stem = nn.Sequential(
            nn.Conv2d(image_channels, widths[0], 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU6(),
        )
        self.features = nn.Sequential(stem)
        stages = zip(widths, widths[1:], blocks, EXPANSIONS, STRIDES, DILATIONS, strict=False)
        for before, width, count, expansion, stride, dilation in stages:
            for number in range(count):
                block = InvertedResidual(
                    width if number else before,
                    width,
                    expansion=expansion,
                    stride=1 if number else stride,
                    dilation=dilation,
                )
                self.features.append(block)
        self.low_channels = widths[LOW]
        self.low_until = 1 + sum(blocks[:LOW])
        self.stride = 2 * math.prod(STRIDES[: len(blocks)])
        """How many times coarser than the image the last features are: 16 with all stages."""

    def forward(self, image: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b d _ _"], Float[Tensor, "b e _ _"]]:
        """Encode.

        Args:
            image: Normalised image; height and width are multiples of the stride.

        Returns:
            Features at a fourth of the resolution, and the last ones.
        """
        low = self.features[: self.low_until](image)
        return low, self.features[self.low_until :](low)
