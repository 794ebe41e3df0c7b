"""The guided UNet as settings describe it, and what all networks have in common whose denoiser it is."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from medsegdiff.config.networks.guided import DenoiserConfig
from medsegdiff.models.base import DiffusionModel
from medsegdiff.nn.guided_unet import GuidedUNet, UNetBlock
from medsegdiff.types import Condition


@dataclass(frozen=True)
class ImageCondition(Condition):
    """The image itself, which each step looks at anew."""

    image: Float[Tensor, "b c h w"]


class GuidedModel(DiffusionModel):
    """A network that is derived from guided diffusion: of the time its denoiser needs the embedding alone."""

    units = (UNetBlock,)
    diffusion_model: GuidedUNet

    def at(self, t: Float[Tensor, " b"], size: tuple[int, int]) -> Float[Tensor, "b dim"]:
        """Embed the times, whatever the size."""
        embedding: Tensor = self.diffusion_model.time(t)
        return embedding


def make_denoiser(
    config: DenoiserConfig, in_channels: int, *, mask_channels: int, bottom: nn.Module | None = None
) -> GuidedUNet:
    """Make the denoiser of a network that is derived from guided diffusion.

    Args:
        config: Its settings.
        in_channels: Of the first convolution.
        mask_channels: K; with ``learn_sigma`` the output has as many again.
        bottom: What takes the place of its blocks at the bottom.

    Returns:
        The UNet.
    """
    return GuidedUNet(
        in_channels,
        mask_channels * (1 + config.learn_sigma),
        channels=config.channels,
        multiples=config.multiples,
        num_blocks=config.num_blocks,
        attention_levels=config.attention_levels,
        num_heads=config.num_heads,
        scale_shift=config.scale_shift,
        bottom=bottom,
    )
