"""ResUNet: a UNet on ResNet-34, which segments the optic disc and cup."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from medsegdiff.config.networks.resunet import ResUNetConfig
from medsegdiff.models.base import MODELS
from medsegdiff.models.deterministic import DeterministicModel, Heads
from medsegdiff.models.pretrained import resnet
from medsegdiff.nn.resnet import UNITS, ResNetEncoder


class UpStep(nn.Module):
    """Doubles the grid and lays the encoder's features beside: each gives half of the channels; ReLU, then batch norm.

    The norm follows the ReLU, and there is no 3×3 convolution.
    """

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels // 2, 2, stride=2)
        self.skip = nn.Conv2d(skip_channels, out_channels // 2, 1)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Float[Tensor, "b c h w"], skip: Float[Tensor, "b d h2 w2"]) -> Float[Tensor, "b e h2 w2"]:
        """Give features on the grid of ``skip``."""
        out: Tensor = self.norm(F.relu(torch.cat([self.up(x), self.skip(skip)], dim=1)))
        return out


class ResNetUNet(nn.Module):
    """ResNet-34 on the way down; equal steps of transposed convolutions on the way up, and one more to full size.

    Unverified: the authors have published no code, and the paper's text was not at hand. Encoder and decoder are those
    of third-party reproductions; where these differ (on order and place of the norm), those of the UNet on ResNet-34
    with these very widths that a deep-learning course made known in 2018.

    Source: Yu et al. (2019), doi:10.1016/j.compmedimag.2019.02.005, at second hand.
    """

    def __init__(
        self,
        image_channels: int,
        mask_channels: int,
        *,
        widths: Sequence[int],
        blocks: Sequence[int],
        decoder_channels: int,
    ) -> None:
        super().__init__()
        self.encoder = ResNetEncoder(image_channels, widths=widths, blocks=blocks)
        *skips, deepest = self.encoder.channels
        below = [deepest, *[decoder_channels] * (len(skips) - 1)]
        self.up = nn.ModuleList(
            UpStep(wide, skip, decoder_channels) for wide, skip in zip(below, reversed(skips), strict=True)
        )
        self.head = nn.ConvTranspose2d(decoder_channels, mask_channels, 2, stride=2)

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """Segment.

        Args:
            image: Normalised image.

        Returns:
            Logits.
        """
        *skips, x = self.encoder(image)
        for up in self.up:
            x = up(x, skips.pop())
        logits: Tensor = self.head(x)
        return logits


@MODELS.register(
    "resunet",
    kind="deterministic",
    paper="Yu et al., Robust optic disc and cup segmentation with deep learning, Computerized Medical Imaging",
    year=2019,
    pretrained="ResNet-34 on ImageNet",
)
class ResUNet(DeterministicModel):
    """ResUNet in one stage: the paper also finds the disc first and cuts it out, which data of crops need not.

    Source: Yu et al. (2019), doi:10.1016/j.compmedimag.2019.02.005, at second hand.
    """

    units = UNITS
    layouts = (resnet("ResNet-34", "condition_model.encoder"),)

    def __init__(self, config: ResUNetConfig, *, image_channels: int, mask_channels: int) -> None:
        super().__init__(stride=2 ** (1 + len(config.widths)))
        self.condition_model = ResNetUNet(
            image_channels,
            mask_channels,
            widths=config.widths,
            blocks=config.blocks,
            decoder_channels=config.decoder_channels,
        )

    def segment(self, image: Float[Tensor, "b c h w"]) -> Heads:
        """Segment."""
        return Heads(self.condition_model(image))
