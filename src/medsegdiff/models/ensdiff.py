"""EnsDiff: the image enters the denoiser beside the noisy mask, and nothing else is done about it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from medsegdiff.config.networks.guided import EnsDiffConfig
from medsegdiff.models.base import MODELS
from medsegdiff.models.denoiser import GuidedModel, ImageCondition, make_denoiser


@MODELS.register(
    "ensdiff",
    paper="Wolleb et al., Diffusion Models for Implicit Image Segmentation Ensembles, MIDL",
    year=2022,
    condition_cached=False,
    has_anchor=False,
)
class EnsDiff(GuidedModel):
    """Implicit ensembles by diffusion; "EnsemDiff" in the tables of MedSegDiff-V2.

    Each step sees the image anew, as channels of its input. There is no Condition Model, so there is no anchor.

    Source: Wolleb et al. (2022), arXiv:2112.03145, section 2.
    """

    def __init__(self, config: EnsDiffConfig, *, image_channels: int, mask_channels: int) -> None:
        super().__init__(stride=2 ** (len(config.multiples) - 1))
        self.diffusion_model = make_denoiser(config, image_channels + mask_channels, mask_channels=mask_channels)

    def condition(self, image: Float[Tensor, "b c h w"]) -> ImageCondition:
        """Keep the image."""
        self.check_size(image)
        return ImageCondition(None, image)

    def denoise(
        self, x_t: Float[Tensor, "b k h w"], time: Tensor, condition: ImageCondition
    ) -> Float[Tensor, "b k2 h w"]:
        """Look at image and masks together."""
        unet = self.diffusion_model
        prediction: Tensor = unet(unet.start(torch.cat([condition.image, x_t], dim=1)), time)
        return prediction
