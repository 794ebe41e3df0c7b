"""SegDiff: features of the image are added to the first features of the noisy mask."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from medsegdiff.config.networks.guided import SegDiffConfig
from medsegdiff.models.base import MODELS
from medsegdiff.models.denoiser import GuidedModel, make_denoiser
from medsegdiff.nn.rrdb import RRDBEncoder
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
