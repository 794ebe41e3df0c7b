"""ResNets as encoders: features by grid, with torchvision's names of weights, so that its files of weights fit."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from monai.networks.nets.resnet import ResNet, ResNetBlock, ResNetBottleneck
from torch import Tensor, nn

WIDTHS = (64, 128, 256, 512)
"""Of the stages of ResNet-34 and ResNet-50; bottlenecks give four times as many channels."""
BLOCKS = (3, 4, 6, 3)
"""In the stages of both."""
UNITS = (ResNetBlock, ResNetBottleneck)
"""The blocks, as classes."""


class ResNetEncoder(nn.Module):
    """ResNet-34, or with bottlenecks ResNet-50, without its classifier: the stem and the stages, kept apart.

    The layers, their first weights and their names are those of MONAI's `ResNet`, and those names are torchvision's:
    ``conv1``, ``bn1``, ``layer1`` … ``layer4``. A bottleneck strides in its 3×3 convolution.

    Source: He et al. (2016), Deep Residual Learning for Image Recognition, table 1 and figure 5.

    Args:
        image_channels: Of the image.
        widths: Of the stages; fewer than four build the first ones alone.
        blocks: In each stage.
        bottleneck: Whether blocks are bottlenecks, with four times the width of channels.
        pool: Whether the first stage works on a grid half as fine as the stem's.
    """

    def __init__(
        self,
        image_channels: int,
        *,
        widths: Sequence[int] = WIDTHS,
        blocks: Sequence[int] = BLOCKS,
        bottleneck: bool = False,
        pool: bool = True,
    ) -> None:
        super().__init__()
        rest = 4 - len(widths)  # MONAI makes four stages
        made = ResNet(
            "bottleneck" if bottleneck else "basic",
            [*blocks, *[1] * rest],
            [*widths, *[1] * rest],
            spatial_dims=2,
            n_input_channels=image_channels,
            conv1_t_stride=2,
            shortcut_type="B",
            bias_downsample=False,
            feed_forward=False,
        )
        self.conv1, self.bn1, self.relu = made.conv1, made.bn1, made.act
        self.maxpool = made.maxpool if pool else nn.Identity()
        self.stages = [f"layer{number}" for number in range(1, 1 + len(widths))]
        for name in self.stages:
            self.add_module(name, getattr(made, name))
        expansion = ResNetBottleneck.expansion if bottleneck else ResNetBlock.expansion
        self.channels = (widths[0], *(expansion * width for width in widths))
        """Of the features, as `forward` gives them."""
        self.stride: int = 2 ** (len(widths) + pool)
        """How many times coarser than the image the last features are."""

    def forward(self, image: Float[Tensor, "b c h w"]) -> list[Tensor]:
        """Encode.

        Args:
            image: Normalised image; height and width are multiples of the stride.

        Returns:
            Features after the stem (half as fine as the image) and after each stage, finest first.
        """
        features = [self.relu(self.bn1(self.conv1(image)))]
        x = self.maxpool(features[0])
        for name in self.stages:
            x = self.get_submodule(name)(x)
            features.append(x)
        return features


def dilated_stage(in_channels: int, width: int, *, blocks: int, dilation: int) -> nn.Sequential:
    """Make a stage of bottlenecks that keeps the grid and looks farther instead.

    Source: Yu et al. (2017), Dilated Residual Networks, section 2.

    Args:
        in_channels: Of the features.
        width: Of the bottlenecks; they give four times as many channels.
        blocks: How many.
        dilation: Of the 3×3 convolutions.

    Returns:
        The stage.
    """
    out_channels = ResNetBottleneck.expansion * width
    around = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
    stage = nn.Sequential(
        ResNetBottleneck(in_channels, width, spatial_dims=2, downsample=around),
        *(ResNetBottleneck(out_channels, width, spatial_dims=2) for _ in range(1, blocks)),
    )
    for block in stage:
        block.conv2 = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False)
    for module in stage.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")  # as in the other stages
    return stage
