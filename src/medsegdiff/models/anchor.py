"""The Condition Model of MedSegDiff-V2 alone: the row "Anchor" of its tables 2 and 3."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from medsegdiff.config.networks.baselines import AnchorConfig
from medsegdiff.models.base import MODELS, DiffusionModel
from medsegdiff.models.condition_unet import ConditionUNet
from medsegdiff.types import Condition


@MODELS.register(
    "anchor",
    kind="deterministic",
    paper="Wu et al., MedSegDiff-V2, AAAI: the Condition Model alone",
    year=2024,
    condition_cached=True,
)
class Anchor(DiffusionModel):
    """A UNet that segments the image, behind the doors of a diffusion model.

    Whatever the noise and the time, its prediction of x_0 are the logits of the anchor; so all members are one, and one
    step gives it. No gradient flows through that prediction: the anchor's loss of equation 3 alone trains it.

    Source: MedSegDiff-V2, Overall Architecture, equation 3; tables 2 and 3.

    Args:
        config: Of the network.
        image_channels: Channels of the image.
        mask_channels: K, channels of the mask.
    """

    def __init__(self, config: AnchorConfig, *, image_channels: int, mask_channels: int) -> None:
        super().__init__(stride=config.patch * 2 ** (len(config.condition_widths) - 1))
        self.condition_model = ConditionUNet(
            image_channels,
            mask_channels,
            widths=config.condition_widths,
            num_blocks=config.num_blocks,
            patch=config.patch,
        )

    def condition(self, image: Float[Tensor, "b c h w"]) -> Condition:
        """Segment.

        Args:
            image: Normalised image; height and width are multiples of the stride.

        Returns:
            Embedding and logits.

        Raises:
            ShapeError: If the size is not a multiple of the stride.
        """
        self.check_size(image.shape[-2], image.shape[-1])
        _, embedding, logits = self.condition_model(image)
        return Condition((), embedding, logits)

    def denoise(
        self,
        x_t: Float[Tensor, "b k h w"],
        t: Float[Tensor, " #b"],
        condition: Condition,
        *,
        filters: Sequence[Tensor] | None = None,
    ) -> Float[Tensor, "b k h w"]:
        """Give the anchor.

        Args:
            x_t: Not used.
            t: Not used.
            condition: Of the image of each mask.
            filters: Not used.

        Returns:
            Its logits, without gradient.
        """
        assert condition.logits is not None
        return condition.logits.detach()
