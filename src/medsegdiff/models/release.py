"""The network that the authors of MedSegDiff ship as version "new": two features of the image, added once."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from medsegdiff.config.networks.guided import ReleaseConfig
from medsegdiff.models.base import MODELS
from medsegdiff.models.denoiser import GuidedModel, make_denoiser
from medsegdiff.nn.context_unet import ContextUNet
from medsegdiff.types import Condition


@MODELS.register(
    "release",
    kind="diffusion",
    paper="the code released with Wu et al., MedSegDiff-V2, AAAI",
    year=2024,
    condition_cached=True,
)
class Release(GuidedModel):
    """A guided-diffusion UNet on image and noisy mask, with decoder features of a plain UNet added at its beginning.

    It has neither a transformer nor a Fourier transform: it is what people have trained who trained the authors'
    code, not what the paper of MedSegDiff-V2 describes.

    Source: the authors' released code, version "new"; a checkpoint of theirs gives the same numbers here.

    Args:
        config: Of the network.
        image_channels: Channels of the image.
        mask_channels: K, channels of the mask.
    """

    def __init__(self, config: ReleaseConfig, *, image_channels: int, mask_channels: int) -> None:
        super().__init__(stride=2 ** max(len(config.condition_widths), len(config.multiples) - 1))
        self.condition_model = ContextUNet(
            image_channels, mask_channels, widths=config.condition_widths, dropout=config.dropout
        )
        self.diffusion_model = make_denoiser(config, image_channels + mask_channels, mask_channels=mask_channels)

    def condition(self, image: Float[Tensor, "b c h w"]) -> Condition:
        """Look at the image, once.

        Args:
            image: Normalised image; height and width are multiples of the stride.

        Returns:
            What is added to the denoiser's first features, the bottleneck, the anchor's logits, the image.

        Raises:
            ShapeError: If the size is not a multiple of the stride.
        """
        self.check_size(image.shape[-2], image.shape[-1])
        bottom, skips = self.condition_model.encode(image)
        features = self.condition_model.decode(bottom, skips)
        fine, coarse = (
            F.interpolate(features[level].detach(), scale_factor=2.0**level, mode="bilinear") for level in (1, 2)
        )
        anchor = torch.cat([fine, fine, coarse], dim=1)
        return Condition((anchor,), bottom, self.condition_model.maps(features[0]), image)

    def _denoised(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        unet = self.diffusion_model
        prediction: Tensor = unet(unet.start(torch.cat([_image(condition), x_t], dim=1)) + condition.gates[0], t)
        return prediction


def _image(condition: Condition) -> Tensor:
    assert condition.image is not None
    return condition.image
