"""MedSegDiff-V2: the Condition Model and the Diffusion Model as one network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from medsegdiff.config.networks.medsegdiff_v2 import V2Config
from medsegdiff.models.base import MODELS, DiffusionModel
from medsegdiff.models.condition_unet import ConditionUNet
from medsegdiff.models.diffusion_unet import DiffusionUNet
from medsegdiff.types import Condition


@MODELS.register(
    "medsegdiff-v2", kind="diffusion", paper="Wu et al., MedSegDiff-V2, AAAI", year=2024, condition_cached=True
)
class MedSegDiffV2(DiffusionModel):
    """Diffusion-based medical image segmentation with a transformer.

    Source: MedSegDiff-V2, figure 1.

    Args:
        config: Of the network.
        image_channels: Channels of the image.
        mask_channels: K, channels of the mask.

    Example:
        >>> import torch
        >>> from medsegdiff.config.load import load_preset
        >>> model = MedSegDiffV2(load_preset("v2-tiny").model, image_channels=3, mask_channels=1)
        >>> condition = model.condition(torch.zeros(2, 3, 64, 64))
        >>> model.denoise(torch.zeros(2, 1, 64, 64), torch.tensor([500.0]), condition).shape
        torch.Size([2, 1, 64, 64])
    """

    def __init__(self, config: V2Config, *, image_channels: int, mask_channels: int) -> None:
        super().__init__(stride=config.patches[0] * 2 ** (len(config.condition_widths) - 1))
        self.see_image = config.see_image
        self.condition_model = ConditionUNet(
            image_channels,
            mask_channels,
            widths=config.condition_widths,
            num_blocks=config.num_blocks,
            patch=config.patches[0],
        )
        self.diffusion_model = DiffusionUNet(image_channels, mask_channels, config)

    def condition(self, image: Float[Tensor, "b c h w"]) -> Condition:
        """Look at the image, once.

        Args:
            image: Normalised image; height and width are multiples of the stride.

        Returns:
            U-SA maps, embedding, the anchor's logits, and its detail where that refines the output.

        Raises:
            ShapeError: If the size is not a multiple of the stride.
        """
        self.check_size(image.shape[-2], image.shape[-1])
        features, embedding, logits = self.condition_model(image)
        return Condition(
            self.diffusion_model.gates(features),
            embedding,
            logits,
            image if self.see_image else None,
            detail=self.diffusion_model.detail(features),
        )

    def prepare(self, condition: Condition) -> Condition:
        """Add what the SS-Former makes of c⁰ alone: its tokens, and keys and values of the first module.

        Args:
            condition: From `condition`.

        Returns:
            The condition, for many steps and members.
        """
        return replace(condition, semantics=self.diffusion_model.look(condition.embedding))

    def filters(self, t: Float[Tensor, " b"], image_size: tuple[int, int]) -> list[Tensor]:
        """Evaluate the NBP-Filters for the times of a sampler.

        Args:
            t: Times.
            image_size: Height and width of the image.

        Returns:
            H of each module of the SS-Former, by radius (b rq rk).
        """
        h, w = image_size
        return self.diffusion_model.filters(t, h // self.stride, w // self.stride)

    def denoise(
        self,
        x_t: Float[Tensor, "b k h w"],
        t: Float[Tensor, " #b"],
        condition: Condition,
        *,
        filters: Sequence[Tensor] | None = None,
    ) -> Float[Tensor, "b k h w"]:
        """Predict ε, x_0 or v (equation 2).

        Args:
            x_t: Noisy masks.
            t: Times in [0, T − 1].
            condition: Of the image of each mask.
            filters: From `filters` at the same t; ``None`` evaluates them.

        Returns:
            The prediction.
        """
        prediction: Tensor = self.diffusion_model(x_t, t, condition, filters=filters)
        return prediction
