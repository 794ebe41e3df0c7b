"""MedSegDiff, the first: dynamic conditional encoding and the FF-Parser."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medsegdiff.config.networks.guided import V1Config
from medsegdiff.models.base import MODELS, Said, size_of
from medsegdiff.models.denoiser import GuidedModel, ImageCondition, make_denoiser
from medsegdiff.nn.ff_parser import ContextUNet, FFParser


class DynamicGate(nn.Module):
    """Weighs features of the image by what the denoiser sees at the moment.

    Noisy features of the denoiser pass the FF-Parser; where the result is strong, as one map over the image and as one
    number per channel, the image's features are let through. No sigmoid and no residual, as in the authors' code.

    Source: Wu et al. (2024), MedSegDiff, MIDL, section Dynamic Conditional Encoding; the authors' released code.
    """

    def __init__(self, noisy_channels: int, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.enter = nn.Conv2d(noisy_channels, channels, 1)
        self.parser = FFParser(channels, size)
        self.map = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Float[Tensor, "b c h w"], noisy: Float[Tensor, "b d h w"]) -> Float[Tensor, "b c h w"]:
        """Gate.

        Args:
            x: Features of the image.
            noisy: Features of the denoiser, of the same size.

        Returns:
            The features, weighed.
        """
        parsed = self.parser(self.enter(noisy))
        gated: Tensor = x * self.map(parsed) * parsed.mean(dim=(2, 3), keepdim=True)  # (b 1 h w) and (b c 1 1)
        return gated


@MODELS.register("medsegdiff-v1", paper="Wu et al., MedSegDiff, MIDL", year=2023, condition_cached=False)
class MedSegDiffV1(GuidedModel):
    """Diffusion-based segmentation whose condition is encoded anew at each step, by the light of the noisy mask.

    Nothing of the condition can be kept from step to step, so a step costs as much as a forward pass. The anchor that
    `condition` gives is that of a mask without noise or signal at the last step; in training it is that of x_t.

    Source: Wu et al. (2024), MedSegDiff, MIDL; the authors' released code, version 1.
    """

    def __init__(self, config: V1Config, *, image_channels: int, mask_channels: int) -> None:
        super().__init__(stride=2 ** len(config.condition_widths))
        widths, noisy = config.condition_widths, [config.channels * multiple for multiple in config.multiples]
        self.mask_channels = mask_channels
        self.condition_model = ContextUNet(image_channels, mask_channels, widths=widths, dropout=config.dropout)
        sides = [config.filter_size // 2**level for level in range(1, len(widths))]
        self.gates = nn.ModuleList(
            DynamicGate(wide, width, (side, side)) for wide, width, side in zip(noisy, widths, sides, strict=False)
        )
        self.embedding = nn.Conv2d(widths[-1], noisy[-1], 1)
        self.diffusion_model = make_denoiser(
            config, image_channels + mask_channels, mask_channels=mask_channels, bottom=self._bottom(config)
        )

    def _bottom(self, config: V1Config) -> nn.Module | None:
        """Make what takes the place of the denoiser's blocks at the bottom: nothing."""
        return None

    def condition(self, image: Float[Tensor, "b c h w"]) -> ImageCondition:
        """Draw the anchor from an empty mask; each step looks at the image anew."""
        self.check_size(image)
        empty = image.new_zeros(len(image), self.mask_channels, *size_of(image))
        _, bottom, skips = self._encode(image, empty, self.at(image.new_tensor([self.last_time]), size_of(image)))
        return ImageCondition(self._anchor(bottom, skips), image)

    def denoise(
        self, x_t: Float[Tensor, "b k h w"], time: Tensor, condition: ImageCondition
    ) -> Float[Tensor, "b k2 h w"]:
        """Encode the image by the light of the masks, then denoise them."""
        features, bottom, _ = self._encode(condition.image, x_t, time)
        return self._decode(features, bottom, time)

    def forward(self, image: Float[Tensor, "b c h w"], x_t: Float[Tensor, "b k h w"], t: Float[Tensor, " b"]) -> Said:
        """Denoise as `denoise` does; the anchor is that of the image encoded by the light of x_t."""
        self.check_size(image)
        time = self.at(t, size_of(image))
        features, bottom, skips = self._encode(image, x_t, time)
        return Said(self._decode(features, bottom, time), self._anchor(bottom, skips))

    def _encode(self, image: Tensor, x_t: Tensor, time: Tensor) -> tuple[list[Tensor], Tensor, list[Tensor]]:
        """Encode the noisy mask, then the image by its light: features, bottleneck, skips."""
        unet = self.diffusion_model
        features = unet.encode(unet.start(torch.cat([image, x_t], dim=1)), time)

        def gate(level: int, x: Tensor) -> Tensor:
            gated: Tensor = self.gates[level - 1](x, unet.entering(features, level))
            return gated

        return features, *self.condition_model.encode(image, modulate=gate)

    def _decode(self, features: Sequence[Tensor], bottom: Tensor, time: Tensor) -> Tensor:
        unet = self.diffusion_model
        return unet.decode(unet.middle(features[-1] + self.embedding(bottom), time), features, time)

    def _anchor(self, bottom: Tensor, skips: Sequence[Tensor]) -> Tensor:
        return self.condition_model.maps(self.condition_model.decode(bottom, skips)[0])
