"""The Diffusion Model: a UNet on the noisy mask, anchored by U-SA and conditioned by the SS-Former."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medsegdiff.config.networks.v2 import V2Config
from medsegdiff.nn.blocks import TimeEmbedding
from medsegdiff.nn.nbp_filter import affinity, softmax_affinity
from medsegdiff.nn.ss_former import SSFormer
from medsegdiff.nn.transformer import SpatialAttention
from medsegdiff.nn.u_sa import UncertainSpatialAttention, apply_gate
from medsegdiff.nn.unet import Decoder, DetailHead, Encoder
from medsegdiff.types import Condition

Anchor = UncertainSpatialAttention | SpatialAttention


@dataclass(frozen=True)
class V2Condition(Condition):
    """What the Diffusion Model of MedSegDiff-V2 needs to know of an image."""

    gates: tuple[Tensor, ...]
    """U-SA maps (b 1 h w) by anchor level."""
    additions: tuple[Tensor, ...]
    """What is added to the Diffusion Model's features (b d h w) by anchor level; none without ``anchor_add``."""
    semantics: tuple[Tensor, ...]
    """What the SS-Former makes of c⁰ alone (b l d): tokens, keys and values of its first module; none without it."""
    image: Float[Tensor, "b c h w"] | None
    """The image, where the Diffusion Model sees it (``see_image``)."""
    detail: Float[Tensor, "b d h w"] | None
    """The Condition Model's finest features at full resolution, where they refine the output."""


@dataclass(frozen=True)
class V2Time:
    """What the Diffusion Model of MedSegDiff-V2 needs to know of times."""

    embedding: Float[Tensor, "b dim"]
    filters: list[Tensor]
    """H of each module of the SS-Former by radius (b rq rk), from its NBP-Filter; none where there are no filters."""


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
        added = _anchored(config) if config.anchor_add else ()
        self.adders = nn.ModuleDict({str(level): _adder(config, level) for level in added})
        self.encoder = Encoder(
            mask_channels + image_channels * config.see_image,
            widths,
            num_blocks=blocks,
            patch=patch,
            time_dim=config.time_dim,
        )
        self.ss_former = None if config.semantic_condition == "none" else _ss_former(config)
        self.decoder = Decoder(
            mask_channels,
            widths,
            num_blocks=blocks,
            patch=patch,
            time_dim=config.time_dim,
            head=_detail_head(config, mask_channels) if config.detail_channels else None,
        )

    def gates(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the maps of the Anchor Condition from the decoder features of the Condition Model (equation 4).

        Args:
            features: By level, finest first.

        Returns:
            One map (b 1 h w) per anchor level.
        """
        return tuple(anchor(features[int(level) + self.levels_above]) for level, anchor in self.anchors.items())

    def additions(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute what is added beside the gates: :math:`W_l f_c`, the anchor's features without loss.

        Deviation: in the paper the anchor enters as a factor in (1, 2) of the Diffusion Model's features alone.

        Args:
            features: By level, finest first.

        Returns:
            One map (b d h w) per anchor level; none without ``anchor_add``.
        """
        return tuple(adder(features[int(level) + self.levels_above]) for level, adder in self.adders.items())

    def semantics(self, embedding: Float[Tensor, "b d h w"]) -> tuple[Tensor, ...]:
        """Compute what the SS-Former makes of the Semantic Condition alone.

        Args:
            embedding: Deepest features of the Condition Model, c⁰.

        Returns:
            See `V2Condition`; nothing without an SS-Former.
        """
        return () if self.ss_former is None else self.ss_former.encode_image(embedding)

    def detail(self, features: Sequence[Tensor]) -> Tensor | None:
        """Bring the finest features of the Condition Model to full resolution, where they refine the output.

        Args:
            features: By level, finest first.

        Returns:
            The detail (b d h w); ``None`` without a `DetailHead`.
        """
        head = self.decoder.head
        return head.encode_image(features[0]) if isinstance(head, DetailHead) else None

    def at(self, t: Float[Tensor, " b"], h: int, w: int) -> V2Time:
        """Embed times and evaluate the NBP-Filters.

        Args:
            t: Times.
            h: Rows of tokens.
            w: Columns of tokens.

        Returns:
            What depends on the times alone.
        """
        embedding = self.time(t)
        return V2Time(embedding, [] if self.ss_former is None else self.ss_former.tabulate(embedding, h, w))

    def forward(self, x_t: Float[Tensor, "b k h w"], time: V2Time, condition: V2Condition) -> Float[Tensor, "b k h w"]:
        """Predict (equation 2).

        Args:
            x_t: Noisy masks.
            time: Of each mask, or one for all.
            condition: Of the image of each mask.

        Returns:
            The prediction.
        """
        gates = dict(zip((int(level) for level in self.anchors), condition.gates, strict=True))
        additions = dict(zip((int(level) for level in self.adders), condition.additions, strict=True))

        def anchor(level: int, f_d: Tensor) -> Tensor:
            enhanced = apply_gate(gates[level], f_d) if level in gates else f_d
            return enhanced + additions[level] if level in additions else enhanced

        image = condition.image
        x = x_t if image is None else torch.cat([x_t, image.expand(x_t.shape[0], -1, -1, -1)], dim=1)
        *skips, e = self.encoder(x, time.embedding, modulate=anchor)  # E_t^x
        if self.ss_former is not None:
            e = self.ss_former(e, condition.semantics, time.filters)  # TransF
        finest = self.decoder(e, skips, time.embedding)[0]  # D
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


def _adder(config: V2Config, level: int) -> nn.Conv2d:
    """Make the way of the Condition Model's features into those of a level; it starts at zero."""
    adder = nn.Conv2d(config.condition_widths[level + config.levels_above], config.diffusion_widths[level], 1)
    nn.init.zeros_(adder.weight)
    nn.init.zeros_(cast(Tensor, adder.bias))
    return adder


def _ss_former(config: V2Config) -> SSFormer:
    return SSFormer(
        config.condition_widths[-1],
        config.diffusion_widths[-1],
        time_dim=config.time_dim,
        dim=config.ss_former_dim,
        num_blocks=config.ss_former_blocks,
        mlp_ratio=config.mlp_ratio,
        weigh=softmax_affinity if config.semantic_condition == "cross-attention" else affinity,
        filtered=config.semantic_condition == "ss-former",
        filter_channels=config.filter_channels,
        filter_blocks=config.filter_blocks,
    )


def _detail_head(config: V2Config, mask_channels: int) -> DetailHead:
    return DetailHead(
        config.diffusion_widths[0],
        config.condition_widths[0],
        mask_channels,
        patches=config.patches,
        width=config.detail_channels,
    )
