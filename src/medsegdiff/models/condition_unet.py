"""The Condition Model, and the network that is nothing else: the rows Anchor of tables 2 and 3."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from medsegdiff.config.networks.guided import AnchorConfig
from medsegdiff.models.base import MODELS
from medsegdiff.models.deterministic import DeterministicModel, Heads
from medsegdiff.nn.unet import Decoder, Encoder


class ConditionUNet(nn.Module):
    """Segments the image as well as a UNet can, and shows how it got there.

    Its decoder features are the Anchor Condition, its deepest features the Semantic Condition. It knows no
    time: it is the static reference of the diffusion. Its own mask is the baseline "Anchor" of tables 2 and 3.

    Source: MedSegDiff-V2, Overall Architecture; figure 1 (a).
    """

    def __init__(
        self,
        image_channels: int,
        mask_channels: int,
        *,
        widths: Sequence[int],
        num_blocks: int,
        patch: int,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(image_channels, widths, num_blocks=num_blocks, patch=patch)
        self.decoder = Decoder(mask_channels, widths, num_blocks=num_blocks, patch=patch)
        supervised = widths[1:-1] if deep_supervision else ()
        self.deep = nn.ModuleList(nn.Conv2d(width, mask_channels, 1) for width in supervised)

    def forward(
        self, image: Float[Tensor, "b c h w"]
    ) -> tuple[list[Tensor], Float[Tensor, "b d h16 w16"], Float[Tensor, "b k h w"], tuple[Tensor, ...]]:
        """Segment.

        Args:
            image: Normalised image.

        Returns:
            Decoder features by level (finest first), embedding c⁰, logits, and in training, where they are supervised,
            logits of the coarser levels.
        """
        *skips, embedding = self.encoder(image)
        features = self.decoder(embedding, skips)
        deep = tuple(head(of) for head, of in zip(self.deep, features[1:], strict=False)) if self.training else ()
        return features, embedding, self.decoder.maps(features[0]), deep


@MODELS.register(
    "anchor", kind="deterministic", paper="Wu et al., MedSegDiff-V2, AAAI: the Condition Model alone", year=2024
)
class Anchor(DeterministicModel):
    """A UNet that segments the image: the Condition Model of MedSegDiff-V2, trained by itself.

    Source: MedSegDiff-V2, Overall Architecture, equation 3; tables 2 and 3.
    """

    def __init__(self, config: AnchorConfig, *, image_channels: int, mask_channels: int) -> None:
        super().__init__(stride=config.patch * 2 ** (len(config.condition_widths) - 1))
        self.condition_model = ConditionUNet(
            image_channels,
            mask_channels,
            widths=config.condition_widths,
            num_blocks=config.num_blocks,
            patch=config.patch,
            deep_supervision=config.deep_supervision,
        )

    def segment(self, image: Float[Tensor, "b c h w"]) -> Heads:
        """Segment, on all grids that are supervised."""
        *_, logits, deep = self.condition_model(image)
        return Heads(logits, deep)
