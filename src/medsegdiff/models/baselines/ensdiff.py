"""EnsDiff: the image enters the denoiser beside the noisy mask, and nothing else is done about it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from medsegdiff.config.networks.baselines import EnsDiffConfig
from medsegdiff.models.base import MODELS
from medsegdiff.models.denoiser import GuidedModel, make_denoiser
from medsegdiff.types import Condition


@MODELS.register(
    "ensdiff",
    kind="diffusion",
    paper="Wolleb et al., Diffusion Models for Implicit Image Segmentation Ensembles, MIDL",
    year=2022,
    condition_cached=False,
    anchor=False,
)
class EnsDiff(GuidedModel):
    """Implicit ensembles by diffusion; "EnsemDiff" in the tables of MedSegDiff-V2.

    Each step sees the image anew, as channels of its input. There is no Condition Model, so there is no anchor.

    Source: Wolleb et al. (2022), arXiv:2112.03145, section 2.

    Args:
        config: Of the network.
        image_channels: Channels of the image.
        mask_channels: K, channels of the mask.
    """

    def __init__(self, config: EnsDiffConfig, *, image_channels: int, mask_channels: int) -> None:
        super().__init__(stride=2 ** (len(config.multiples) - 1))
        self.diffusion_model = make_denoiser(config, image_channels + mask_channels, mask_channels=mask_channels)

    def condition(self, image: Float[Tensor, "b c h w"]) -> Condition:
        """Keep the image.

        Args:
            image: Normalised image; height and width are multiples of the stride.

        Returns:
            The image as embedding, and no logits.

        Raises:
            ShapeError: If the size is not a multiple of the stride.
        """
        self.check_size(image.shape[-2], image.shape[-1])
        return Condition((), image, None)

    def _denoised(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        unet = self.diffusion_model
        prediction: Tensor = unet(unet.start(torch.cat([condition.embedding, x_t], dim=1)), t)
        return prediction
