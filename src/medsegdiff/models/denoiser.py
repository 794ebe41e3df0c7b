"""The guided UNet as settings describe it, and what all networks have in common whose denoiser it is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from medsegdiff.config.networks.guided import DenoiserConfig
from medsegdiff.models.base import DiffusionModel
from medsegdiff.nn.guided_unet import GuidedUNet, Rung
from medsegdiff.types import Condition


class GuidedModel(DiffusionModel):
    """A network that is derived from guided diffusion: nothing in its denoiser depends on the time alone."""

    units = (Rung,)
    diffusion_model: GuidedUNet

    def denoise(
        self,
        x_t: Float[Tensor, "b k h w"],
        t: Float[Tensor, " #b"],
        condition: Condition,
        *,
        filters: Sequence[Tensor] | None = None,
    ) -> Float[Tensor, "b k2 h w"]:
        """Predict ε, x_0 or v.

        Args:
            x_t: Noisy masks.
            t: Times in [0, T − 1].
            condition: Of the image of each mask.
            filters: Not used.

        Returns:
            The prediction; with ``learn_sigma`` then the variance by channel.
        """
        return self._denoised(x_t, t, condition)

    @abstractmethod
    def _denoised(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Let the UNet see masks, times and condition."""


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
