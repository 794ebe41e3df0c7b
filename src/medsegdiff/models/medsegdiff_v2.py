"""MedSegDiff-V2: the Condition Model and the Diffusion Model as one network."""

from __future__ import annotations

from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from medsegdiff.config.networks.v2 import V2Config
from medsegdiff.models.base import MODELS, DiffusionModel
from medsegdiff.models.condition_unet import ConditionUNet, Seen
from medsegdiff.models.diffusion_unet import DiffusionUNet, V2Condition, V2Time


@MODELS.register("medsegdiff-v2", paper="Wu et al., MedSegDiff-V2, AAAI", year=2024)
class MedSegDiffV2(DiffusionModel):
    """Diffusion-based medical image segmentation with a transformer.

    Source: MedSegDiff-V2, figure 1.
    """

    broadcasts = True

    def __init__(self, config: V2Config, *, image_channels: int, mask_channels: int) -> None:
        super().__init__(stride=config.patches[0] * 2 ** (len(config.condition_widths) - 1))
        self.see_image = config.see_image
        self.condition_model = ConditionUNet(
            image_channels,
            mask_channels,
            widths=config.condition_widths,
            num_blocks=config.num_blocks,
            patch=config.patches[0],
            deep_supervision=config.deep_supervision,
        )
        self.diffusion_model = DiffusionUNet(image_channels, mask_channels, config)

    def condition(self, image: Float[Tensor, "b c h w"]) -> V2Condition:
        """Look at the image, once: its own segmentation, the Anchor Condition and the Semantic Condition."""
        self.check_size(image)
        seen: Seen = self.condition_model(image)
        return V2Condition(
            seen.logits,
            deep=seen.deep,
            pooled=seen.pooled,
            gates=self.diffusion_model.gates(seen.features),
            additions=self.diffusion_model.additions(seen.features),
            semantics=self.diffusion_model.semantics(seen.embedding),
            image=image if self.see_image else None,
            detail=self.diffusion_model.detail(seen.features),
        )

    def at(self, t: Float[Tensor, " b"], size: tuple[int, int]) -> V2Time:
        """Embed the times and evaluate the NBP-Filters."""
        h, w = size
        return self.diffusion_model.at(t, h // self.stride, w // self.stride)

    def denoise(self, x_t: Float[Tensor, "b k h w"], time: V2Time, condition: V2Condition) -> Float[Tensor, "b k h w"]:
        """Predict (equation 2)."""
        prediction: Tensor = self.diffusion_model(x_t, time, condition)
        return prediction

    def begin_with_nothing(self) -> None:
        """Set the last convolution of the Diffusion Model to zero."""
        *_, last = (module for module in self.diffusion_model.decoder.head.modules() if isinstance(module, nn.Conv2d))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(cast(Tensor, last.bias))
