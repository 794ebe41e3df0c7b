"""The Diffusion Model: a UNet on the noisy mask, anchored by U-SA and conditioned by the SS-Former."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medsegdiff.config.networks.medsegdiff_v2 import V2Config
from medsegdiff.nn.affinity import affinity, softmax_affinity
from medsegdiff.nn.blocks import TimeEmbedding
from medsegdiff.nn.detail import DetailHead
from medsegdiff.nn.spatial_attention import SpatialAttention
from medsegdiff.nn.ss_former import SSFormer
from medsegdiff.nn.u_sa import UncertainSpatialAttention, apply_gate
from medsegdiff.nn.unet import Decoder, Encoder
from medsegdiff.types import Condition

Anchor = UncertainSpatialAttention | SpatialAttention


class DiffusionUNet(nn.Module):
    r"""Predicts what the diffusion needs from the noisy mask, the time and the condition.

    :math:`\epsilon_\theta(x_t, I, t) = D(\mathrm{TransF}(E_t^I, E_t^x), t)`: the SS-Former is TransF, D the decoder.

    It may work on larger cells of pixels than the Condition Model does. Its levels then stand beside those of the same
    resolution: level l beside level l + ``levels_above``, and the two embeddings lie on the same grid.

    Source: MedSegDiff-V2, equation 2; figure 1 (a).
    """

    def __init__(self, image_channels: int, mask_channels: int, config: V2Config) -> None:
        super().__init__()
        widths, blocks, patch = config.diffusion_widths, config.num_blocks, config.patches[1]
        self.levels_above = config.levels_above
        self.time = TimeEmbedding(config.time_dim)
        self.anchors = nn.ModuleDict({str(level): _anchor(config, level) for level in _anchored(config)})
        self.encoder = Encoder(
            mask_channels + image_channels * config.see_image,
            widths,
            num_blocks=blocks,
            patch=patch,
            time_dim=config.time_dim,
        )
        self.ss_former = None if config.semantic_condition == "none" else _ss_former(config)
        head = (
            DetailHead(
                widths[0],
                config.condition_widths[0],
                mask_channels,
                patches=config.patches,
                width=config.detail_channels,
            )
            if config.detail_channels
            else None
        )
        self.decoder = Decoder(
            mask_channels, widths, num_blocks=blocks, patch=patch, time_dim=config.time_dim, head=head
        )

    def gates(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the U-SA maps from the decoder features of the Condition Model (equations 4 and 5).

        Args:
            features: By level, finest first.

        Returns:
            One map (b 1 h w) per anchor level.
        """
        return tuple(
            cast(Anchor, anchor).gate(features[int(level) + self.levels_above])
            for level, anchor in self.anchors.items()
        )

    def detail(self, features: Sequence[Tensor]) -> Tensor | None:
        """Bring the finest features of the Condition Model to full resolution, where they refine the output.

        Args:
            features: By level, finest first.

        Returns:
            The detail (b d h w); ``None`` without a `DetailHead`.
        """
        head = self.decoder.head
        return head.look(features[0]) if isinstance(head, DetailHead) else None

    def filters(self, t: Float[Tensor, " b"], h: int, w: int) -> list[Tensor]:
        """Evaluate the NBP-Filters.

        Args:
            t: Times.
            h: Rows of tokens.
            w: Columns of tokens.

        Returns:
            H of each module of the SS-Former, by radius (b rq rk); none where there are no filters.
        """
        return [] if self.ss_former is None else self.ss_former.tabulate(self.time(t), h, w)

    def look(self, embedding: Float[Tensor, "b d h w"]) -> tuple[Tensor, ...]:
        """Let the SS-Former look at the image.

        Args:
            embedding: Deepest features of the Condition Model, c⁰.

        Returns:
            What depends on c⁰ alone; nothing without an SS-Former.
        """
        return () if self.ss_former is None else self.ss_former.look(embedding)

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
        if self.ss_former is not None:
            if filters is None:
                filters = self.ss_former.tabulate(time, e.shape[-2], e.shape[-1])
            e = self.ss_former.mix(e, condition.semantics or self.look(condition.embedding), filters)
        finest = self.decoder(e, skips, time)[0]
        if condition.detail is None:
            return self.decoder.maps(finest)
        refined: Tensor = self.decoder.head(finest, condition.detail)
        return refined


def _anchored(config: V2Config) -> tuple[int, ...]:
    """List the levels that the Anchor Condition enters."""
    return () if config.anchor_condition == "none" else config.anchor_levels


def _anchor(config: V2Config, level: int) -> Anchor:
    if config.anchor_condition == "spatial":
        return SpatialAttention()
    pixels = config.patches[1] * 2**level  # of a place of that level
    return UncertainSpatialAttention(
        config.condition_widths[level + config.levels_above], sigma=config.anchor_sigma / pixels
    )


def _ss_former(config: V2Config) -> SSFormer:
    return SSFormer(
        config.condition_widths[-1],
        config.diffusion_widths[-1],
        time_dim=config.time_dim,
        dim=config.ss_former_dim,
        num_blocks=config.ss_former_blocks,
        mlp_ratio=config.mlp_ratio,
        filter_channels=config.filter_channels,
        filter_blocks=config.filter_blocks,
        filtered=config.semantic_condition == "ss-former",
        weigh=softmax_affinity if config.semantic_condition == "cross-attention" else affinity,
    )
