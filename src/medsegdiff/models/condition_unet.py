"""The Condition Model: a standard UNet on the image, run once per image."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from medsegdiff.nn.unet import Decoder, Encoder


class ConditionUNet(nn.Module):
    """Segments the image as well as a UNet can, and shows how it got there.

    Its decoder features are the Anchor Condition, its deepest features the Semantic Condition. It knows no
    time: it is the static reference of the diffusion. Its own mask is the baseline "Anchor" of tables 2 and 3.

    Source: MedSegDiff-V2, Overall Architecture; figure 1 (a).
    """

    def __init__(
        self, image_channels: int, mask_channels: int, *, widths: Sequence[int], num_blocks: int, patch: int
    ) -> None:
        super().__init__()
        self.encoder = Encoder(image_channels, widths, num_blocks=num_blocks, patch=patch)
        self.decoder = Decoder(mask_channels, widths, num_blocks=num_blocks, patch=patch)

    def forward(
        self, image: Float[Tensor, "b c h w"]
    ) -> tuple[list[Tensor], Float[Tensor, "b d h16 w16"], Float[Tensor, "b k h w"]]:
        """Segment.

        Args:
            image: Normalised image.

        Returns:
            Decoder features by level (finest first), embedding c⁰, logits.
        """
        *skips, embedding = self.encoder(image)
        features = self.decoder(embedding, skips)
        return features, embedding, self.decoder.maps(features[0])
