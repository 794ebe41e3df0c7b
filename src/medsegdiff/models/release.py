"""The network that the authors of MedSegDiff ship as version "new": two features of the image, added once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from medsegdiff.config.networks.guided import ReleaseConfig
from medsegdiff.models.base import MODELS
from medsegdiff.models.denoiser import GuidedModel, ImageCondition, make_denoiser
from medsegdiff.nn.ff_parser import ContextUNet


@dataclass(frozen=True)
class ReleaseCondition(ImageCondition):
    """The image, and what is seen of it."""

    features: Float[Tensor, "b d h w"]
    """Decoder features at full resolution, as wide as the denoiser's first features."""


@MODELS.register("release", paper="the code released with Wu et al., MedSegDiff-V2, AAAI", year=2024)
class Release(GuidedModel):
    """A guided-diffusion UNet on image and noisy mask, with decoder features of a plain UNet added at its beginning.

    It has neither a transformer nor a Fourier transform: it is what people have trained who trained the authors'
    code, not what the paper of MedSegDiff-V2 describes.

    Source: the authors' released code, version "new"; a checkpoint of theirs gives the same numbers here.
    """

    def __init__(self, config: ReleaseConfig, *, image_channels: int, mask_channels: int) -> None:
        super().__init__(stride=2 ** max(len(config.condition_widths), len(config.multiples) - 1))
        self.condition_model = ContextUNet(
            image_channels, mask_channels, widths=config.condition_widths, dropout=config.dropout
        )
        self.diffusion_model = make_denoiser(config, image_channels + mask_channels, mask_channels=mask_channels)

    def condition(self, image: Float[Tensor, "b c h w"]) -> ReleaseCondition:
        """Look at the image, once."""
        self.check_size(image)
        features = self.condition_model.decode(*self.condition_model.encode(image))
        fine, coarse = (
            F.interpolate(features[level].detach(), scale_factor=2.0**level, mode="bilinear") for level in (1, 2)
        )  # at full resolution, as wide as levels 0 and 1
        seen = torch.cat([fine, fine, coarse], dim=1)
        return ReleaseCondition(self.condition_model.maps(features[0]), image, seen)

    def denoise(
        self, x_t: Float[Tensor, "b k h w"], time: Tensor, condition: ReleaseCondition
    ) -> Float[Tensor, "b k2 h w"]:
        """Look at image and masks together, by the light of what is seen of the image."""
        unet = self.diffusion_model
        first = unet.start(torch.cat([condition.image, x_t], dim=1)) + condition.features
        prediction: Tensor = unet(first, time)
        return prediction
