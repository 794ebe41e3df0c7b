"""The guided UNet as settings describe it."""

from __future__ import annotations

from torch import nn

from medsegdiff.networks.guided import DenoiserConfig
from medsegdiff.nn.guided_unet import GuidedUNet


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
        checkpointing=config.checkpointing,
    )
