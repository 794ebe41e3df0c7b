"""The Diffusion Model: a UNet on the noisy mask, anchored by U-SA and conditioned by the SS-Former."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medsegdiff.config import ModelConfig
from medsegdiff.nn.blocks import TimeEmbedding
from medsegdiff.nn.ss_former import SSFormer
from medsegdiff.nn.u_sa import UncertainSpatialAttention, apply_gate
from medsegdiff.nn.unet import Decoder, Encoder
from medsegdiff.types import Condition


class DiffusionUNet(nn.Module):
    r"""Predicts what the diffusion needs from the noisy mask, the time and the condition.

    :math:`\epsilon_\theta(x_t, I, t) = D(\mathrm{TransF}(E_t^I, E_t^x), t)`: the SS-Former is TransF, D the decoder.

    Source: MedSegDiff-V2, equation 2; figure 1 (a).
    """

    def __init__(self, image_channels: int, mask_channels: int, config: ModelConfig) -> None:
        super().__init__()
        widths, blocks = config.diffusion_widths, config.num_blocks
        self.time = TimeEmbedding(config.time_dim)
        self.anchors = nn.ModuleDict(
            {
                str(level): UncertainSpatialAttention(
                    config.condition_widths[level], sigma=config.anchor_sigma / (config.patch * 2**level)
                )
                for level in config.anchor_levels
            }
        )
        self.encoder = Encoder(
            mask_channels + image_channels * config.see_image,
            widths,
            num_blocks=blocks,
            patch=config.patch,
            time_dim=config.time_dim,
        )
        self.ss_former = SSFormer(
            config.condition_widths[-1],
            widths[-1],
            time_dim=config.time_dim,
            dim=config.ss_former_dim,
            num_blocks=config.ss_former_blocks,
            mlp_ratio=config.mlp_ratio,
            filter_channels=config.filter_channels,
            filter_blocks=config.filter_blocks,
        )
        self.decoder = Decoder(mask_channels, widths, num_blocks=blocks, patch=config.patch, time_dim=config.time_dim)

    def gates(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the U-SA maps from the decoder features of the Condition Model (equations 4 and 5).

        Args:
            features: By level, finest first.

        Returns:
            One map (b 1 h w) per anchor level.
        """
        return tuple(cast(UncertainSpatialAttention, a).gate(features[int(level)]) for level, a in self.anchors.items())

    def filters(self, t: Float[Tensor, " b"], h: int, w: int) -> list[Tensor]:
        """Evaluate the NBP-Filters.

        Args:
            t: Times.
            h: Rows of tokens.
            w: Columns of tokens.

        Returns:
            H of each module of the SS-Former, by radius (b rq rk).
        """
        return self.ss_former.tabulate(self.time(t), h, w)

    def forward(
        self,
        x_t: Float[Tensor, "b k h w"],
        t: Float[Tensor, " #b"],
        condition: Condition,
        *,
        filters: Sequence[Tensor] | None = None,
    ) -> Float[Tensor, "b k h w"]:
        """Predict.

        Args:
            x_t: Noisy masks.
            t: Times; one serves the whole batch.
            condition: Of the image of each mask.
            filters: From `filters` at the same t; ``None`` evaluates them.

        Returns:
            The prediction.
        """
        time = self.time(t)
        gates = dict(zip((int(level) for level in self.anchors), condition.gates, strict=True))

        def anchor(level: int, f_d: Tensor) -> Tensor:
            return apply_gate(gates[level], f_d) if level in gates else f_d

        x = x_t if condition.image is None else torch.cat([x_t, condition.image], dim=1)
        *skips, e = self.encoder(x, time, modulate=anchor)
        if filters is None:
            filters = self.ss_former.tabulate(time, e.shape[-2], e.shape[-1])
        features = self.decoder(self.ss_former(e, condition.embedding, filters), skips, time)
        return self.decoder.maps(features[0])
