"""SegDiff: features of the image are added to the first features of the noisy mask."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from medsegdiff.config.networks.guided import SegDiffConfig
from medsegdiff.models.base import MODELS
from medsegdiff.models.denoiser import GuidedModel, make_denoiser
from medsegdiff.types import Condition


@dataclass(frozen=True)
class SegDiffCondition(Condition):
    """What the dense blocks see."""

    features: Float[Tensor, "b d h w"]
    """At full resolution, as wide as the mask's first features."""


@MODELS.register("segdiff", paper="Amit et al., SegDiff, arXiv:2112.00390", year=2021, has_anchor=False)
class SegDiff(GuidedModel):
    """Dense blocks look at the image, and what they see is summed with the mask's first convolution.

    They never see the mask or the time, so here they look once; the released code computes them anew at each step,
    which is two thirds of its operations. They are trained by the denoiser's loss alone: there is no anchor.

    Source: Amit et al. (2021), arXiv:2112.00390, section 4, equation 12; widths as in the released code.
    """

    def __init__(self, config: SegDiffConfig, *, image_channels: int, mask_channels: int) -> None:
        super().__init__(stride=2 ** (len(config.multiples) - 1))
        self.condition_model = RRDBEncoder(
            image_channels,
            config.channels * config.multiples[0],
            channels=config.encoder_channels,
            growth=config.encoder_growth,
            num_blocks=config.encoder_blocks,
        )
        self.diffusion_model = make_denoiser(config, mask_channels, mask_channels=mask_channels)

    def condition(self, image: Float[Tensor, "b c h w"]) -> SegDiffCondition:
        """Look at the image, once."""
        self.check_size(image)
        return SegDiffCondition(None, self.condition_model(image))

    def denoise(
        self, x_t: Float[Tensor, "b k h w"], time: Tensor, condition: SegDiffCondition
    ) -> Float[Tensor, "b k2 h w"]:
        """Add what is seen of the image to the masks' first features (equation 12)."""
        unet = self.diffusion_model
        prediction: Tensor = unet(unet.start(x_t) + condition.features, time)
        return prediction


CONVOLUTIONS = 5
"""Of a dense block."""
DENSE_BLOCKS = 3
"""Of a residual-in-residual dense block."""
SHARE = 0.2
"""By which what a block adds is scaled: β of Wang et al."""


class DenseBlock(nn.Module):
    """Convolutions of which each sees what all before it made; a residual around them.

    Source: Wang et al. (2018), ESRGAN, arXiv:1809.00219, section 3.1 and figure 4.
    """

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        last = CONVOLUTIONS - 1
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels + index * growth, channels if index == last else growth, 3, padding=1)
            for index in range(CONVOLUTIONS)
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Add what the last convolution makes of all before it."""
        *inner, last = self.convolutions
        features = x
        for convolution in inner:
            features = torch.cat([features, F.leaky_relu(convolution(features), 0.2)], dim=1)
        out: Tensor = x + SHARE * last(features)
        return out


class RRDB(nn.Sequential):
    """Dense blocks with a residual around them."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__(*(DenseBlock(channels, growth) for _ in range(DENSE_BLOCKS)))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Add what the blocks make of x, one after the other."""
        features = x
        for block in self:
            features = block(features)
        return x + SHARE * features


class RRDBEncoder(nn.Module):
    """Looks at the image at full resolution.

    Source: Amit et al. (2021), SegDiff, arXiv:2112.00390, section 4.1; the two last convolutions are those of the
    released code.
    """

    def __init__(self, in_channels: int, out_channels: int, *, channels: int, growth: int, num_blocks: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.blocks = nn.Sequential(*(RRDB(channels, growth) for _ in range(num_blocks)))
        self.trunk = nn.Conv2d(channels, channels, 3, padding=1)
        self.head = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, out_channels, 3, padding=1),
        )

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """Encode the image, its resolution kept."""
        first = self.stem(image)
        features: Tensor = self.head(first + self.trunk(self.blocks(first)))
        return features
