"""The residual UNet with attention that denoises in networks derived from guided diffusion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from medsegdiff.nn.blocks import Recomputed, ResidualBlock, TimeEmbedding, Upsample, full_precision, group_norm

GROUPS = 32
"""Of the normalisations."""


def norm_of(channels: int) -> nn.GroupNorm:
    """Make the normalisation of these networks: 32 groups.

    A time that is only added before the norm is lost where a group is a single channel, so widths that 32 does not
    divide, which guided diffusion refuses, have groups of 4 channels or more.
    """
    return group_norm(channels, GROUPS if channels % GROUPS == 0 else math.gcd(GROUPS, max(1, channels // 4)))


class SelfAttention(nn.Module):
    """Lets each pixel look at all others, by heads; a residual around it.

    Source: Dhariwal & Nichol (2021), section 3.
    """

    def __init__(self, channels: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = norm_of(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Add to each pixel what it sees."""
        tokens = self.qkv(self.norm(x).flatten(2)).unflatten(1, (self.heads, 3, -1))  # (b, heads, 3, d, h*w)
        # (b, heads, h*w, d), and so in memory: other layouts are refused by all kernels but the one that makes L×L maps
        q, k, v = tokens.transpose(-1, -2).contiguous().unbind(dim=2)
        seen = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).flatten(1, 2)  # (b, c, h*w)
        out: Tensor = x + self.out(seen).view(x.shape)
        return out


class UNetBlock(Recomputed):
    """A residual block, followed by attention where it is wanted."""

    def __init__(
        self, in_channels: int, out_channels: int, *, time_dim: int, scale_shift: bool, heads: int | None
    ) -> None:
        super().__init__()
        self.block = ResidualBlock(in_channels, out_channels, time_dim=time_dim, norm=norm_of, scale_shift=scale_shift)
        self.attention = nn.Identity() if heads is None else SelfAttention(out_channels, heads=heads)

    def compute(
        self, x: Float[Tensor, "b c h w"], time: Float[Tensor, "#b dim"], skip: Float[Tensor, "b s h w"] | None = None
    ) -> Float[Tensor, "b d h w"]:
        """Apply block and attention to x, beside which features of the way down may be looked at."""
        out: Tensor = self.attention(self.block(x if skip is None else torch.cat([x, skip], dim=1), time))
        return out


class GuidedUNet(nn.Module):
    """A UNet whose every block on the way down is looked at by one on the way up.

    Made of parts, so that a network can look at what is on the way, or add to it: `encode`, `middle`, `decode`.
    The last layer of each residual starts at zero. Another ``bottom``, called with features and time, takes the place
    of the blocks at the coarsest level.

    Source: Dhariwal & Nichol (2021), section 3; Ho et al. (2020), appendix B.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        channels: int,
        multiples: Sequence[int],
        num_blocks: int,
        attention_levels: Sequence[int] = (),
        num_heads: int = 1,
        scale_shift: bool = False,
        bottom: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.num_blocks = num_blocks
        widths, time_dim = [channels * multiple for multiple in multiples], 4 * channels

        def block(a: int, b: int, level: int) -> UNetBlock:
            heads = num_heads if level in attention_levels else None
            return UNetBlock(a, b, time_dim=time_dim, scale_shift=scale_shift, heads=heads)

        self.time = TimeEmbedding(time_dim, num_frequencies=channels // 2)
        self.stem = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.levels_down, self.levels_up = nn.ModuleList(), nn.ModuleList()
        self.down = nn.ModuleList(nn.Conv2d(width, width, 3, stride=2, padding=1) for width in widths[:-1])
        self.up = nn.ModuleList(Upsample(width, width) for width in widths[1:])
        skips, x = [widths[0]], widths[0]
        for level, width in enumerate(widths):
            ways = pairwise([x] + [width] * num_blocks)
            self.levels_down.append(nn.ModuleList(block(a, b, level) for a, b in ways))
            skips += [width] * (num_blocks + (level < len(widths) - 1))
            x = width
        self.bottom = bottom
        if bottom is None:
            self.before = UNetBlock(x, x, time_dim=time_dim, scale_shift=scale_shift, heads=num_heads)
            self.after = UNetBlock(x, x, time_dim=time_dim, scale_shift=scale_shift, heads=None)
        for level, width in reversed(list(enumerate(widths))):
            blocks = nn.ModuleList()
            for _ in range(num_blocks + 1):
                blocks.append(block(x + skips.pop(), width, level))
                x = width
            self.levels_up.insert(0, blocks)
        self.head = nn.Sequential(norm_of(widths[0]), nn.SiLU(), nn.Conv2d(widths[0], out_channels, 3, padding=1))
        self._start_at_zero()

    def _start_at_zero(self) -> None:
        blocks = [m.conv_out for m in self.modules() if isinstance(m, ResidualBlock)]
        attentions = [m.out for m in self.modules() if isinstance(m, SelfAttention)]
        for layer in (*blocks, *attentions, self.head[-1]):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def start(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """Apply the first convolution."""
        features: Tensor = self.stem(x)
        return features

    def encode(self, first: Float[Tensor, "b d h w"], time: Float[Tensor, "#b dim"]) -> list[Tensor]:
        """Go down.

        Args:
            first: What `start` gave.
            time: Time embedding.

        Returns:
            ``first`` and what each block and each halving gave, in order.
        """
        features = [first]
        for index, level in enumerate(self.levels_down):
            if index:
                features.append(self.down[index - 1](features[-1]))
            for block in cast(nn.ModuleList, level):
                features.append(block(features[-1], time))
        return features

    def entering(self, features: Sequence[Tensor], level: int) -> Tensor:
        """Pick, from what `encode` gave, the features before the first block of a level (from 0)."""
        return features[level * (self.num_blocks + 1)]

    def middle(self, x: Float[Tensor, "b c h w"], time: Float[Tensor, "#b dim"]) -> Float[Tensor, "b c h w"]:
        """Apply the blocks at the bottom, attention between them, or what stands in their place.

        Args:
            x: The last features on the way down.
            time: Time embedding.

        Returns:
            Features of the same size.
        """
        changed: Tensor = self.after(self.before(x, time), time) if self.bottom is None else self.bottom(x, time)
        return changed

    def decode(
        self, x: Float[Tensor, "b c h w"], features: Sequence[Tensor], time: Float[Tensor, "#b dim"]
    ) -> Float[Tensor, "b k gh gw"]:
        """Go up, and give maps in full precision.

        Args:
            x: From `middle`.
            features: From `encode`.
            time: Time embedding.

        Returns:
            One map per output channel.
        """
        skips = list(features)
        for index in reversed(range(len(self.levels_up))):
            for block in cast(nn.ModuleList, self.levels_up[index]):
                x = block(x, time, skips.pop())
            x = self.up[index - 1](x) if index else x
        with full_precision(x):
            maps: Tensor = self.head(x.float())
        return maps

    def forward(self, first: Float[Tensor, "b d h w"], time: Float[Tensor, "#b dim"]) -> Float[Tensor, "b k h w"]:
        """Go all the way, without looking at anything on it.

        Args:
            first: What `start` gave, and what is added to it.
            time: Time embedding.

        Returns:
            One map per output channel.
        """
        features = self.encode(first, time)
        return self.decode(self.middle(features[-1], time), features, time)
