"""The Condition Model, and the network that is nothing else: the rows Anchor of tables 2 and 3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medsegdiff.config.networks.guided import AnchorConfig
from medsegdiff.models.base import MODELS
from medsegdiff.models.deterministic import DeterministicModel, Heads
from medsegdiff.nn.unet import Decoder, Encoder


class Seen(NamedTuple):
    """What the Condition Model makes of images."""

    features: list[Tensor]
    """Of the decoder by level, finest first."""
    embedding: Float[Tensor, "b d h16 w16"]
    """The deepest, c⁰."""
    logits: Float[Tensor, "b k h w"]
    deep: tuple[Tensor, ...]
    """Logits of the coarser levels: in training, where they are supervised."""
    pooled: Float[Tensor, "b f"] | None
    """See `pooled_of`; ``None`` in training."""


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

    def forward(self, image: Float[Tensor, "b c h w"]) -> Seen:
        """Segment.

        Args:
            image: Normalised image.

        Returns:
            Features, embedding and logits.
        """
        *skips, embedding = self.encoder(image)
        features = self.decoder(embedding, skips)
        deep = tuple(head(of) for head, of in zip(self.deep, features[1:], strict=False)) if self.training else ()
        pooled = None if self.training else pooled_of((*skips, embedding))
        return Seen(features, embedding, self.decoder.maps(features[0]), deep, pooled)


def pooled_of(levels: Sequence[Float[Tensor, "b _ _ _"]]) -> Float[Tensor, "b f"]:
    """Describe images by what an encoder makes of them: mean and deviation of each channel of each level.

    Args:
        levels: Features, the deepest among them.

    Returns:
        By level the means, then the deviations.
    """
    flat = [level.flatten(start_dim=2).float() for level in levels]
    return torch.cat([of for level in flat for of in (level.mean(dim=2), level.std(dim=2, correction=0))], dim=1)


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
        seen: Seen = self.condition_model(image)
        return Heads(seen.logits, seen.deep, pooled=seen.pooled)
