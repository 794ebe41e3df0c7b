"""The two halves of a UNet, shared by the Condition Model and the Diffusion Model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from medsegdiff.nn.blocks import ResidualBlock, Upsample, full_precision, group_norm

Modulate = Callable[[int, Tensor], Tensor]
"""(level, features) → features of the same shape."""


def unchanged(level: int, features: Tensor) -> Tensor:
    """Leave the features of a level as they are, whichever it is."""
    return features


class Level(nn.ModuleList):
    """Residual blocks at one resolution."""

    def __init__(self, in_channels: int, out_channels: int, *, num_blocks: int, time_dim: int | None) -> None:
        widths = [in_channels] + [out_channels] * num_blocks
        super().__init__(ResidualBlock(a, b, time_dim=time_dim) for a, b in pairwise(widths))

    def forward(self, x: Float[Tensor, "b c h w"], time: Tensor | None = None) -> Float[Tensor, "b d h w"]:
        """Apply the blocks one after the other."""
        for block in self:
            x = block(x, time)
        return x


class Encoder(nn.Module):
    """The way down: features at each level, the last of which is the embedding.

    Level l has the resolution of the input divided by patch · 2^l.
    """

    def __init__(
        self, in_channels: int, widths: Sequence[int], *, num_blocks: int, patch: int = 1, time_dim: int | None = None
    ) -> None:
        super().__init__()
        self.fold = nn.PixelUnshuffle(patch)
        self.stem = nn.Conv2d(in_channels * patch**2, widths[0], 3, padding=1)
        self.levels = nn.ModuleList(Level(width, width, num_blocks=num_blocks, time_dim=time_dim) for width in widths)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))

    def forward(
        self, x: Float[Tensor, "b c h w"], time: Tensor | None = None, *, modulate: Modulate = unchanged
    ) -> list[Tensor]:
        """Encode.

        Args:
            x: Image or noisy mask; height and width are multiples of the stride.
            time: Time embedding, or ``None``.
            modulate: What is done to the features of each level before they go on.

        Returns:
            Features by level, finest first.
        """
        features = []
        x = self.stem(self.fold(x))
        for index, level in enumerate(self.levels):
            x = modulate(index, level(x if index == 0 else self.down[index - 1](x), time))
            features.append(x)
        return features


class Decoder(nn.Module):
    """The way up: features at each level but the coarsest, and a head that gives one map per output channel.

    Another ``head`` takes the place of the plain one.
    """

    def __init__(
        self,
        out_channels: int,
        widths: Sequence[int],
        *,
        num_blocks: int,
        patch: int = 1,
        time_dim: int | None = None,
        head: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.up = nn.ModuleList(Upsample(b, a) for a, b in pairwise(widths))
        self.levels = nn.ModuleList(
            Level(2 * width, width, num_blocks=num_blocks, time_dim=time_dim) for width in widths[:-1]
        )
        self.head = head or nn.Sequential(
            group_norm(widths[0]),
            nn.SiLU(),
            nn.Conv2d(widths[0], out_channels * patch**2, 3, padding=1),
            nn.PixelShuffle(patch),
        )

    def maps(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k gh gw"]:
        """Apply the head, in full precision: in ε a rounding error is divided by a small α.

        Args:
            features: Of the finest level.

        Returns:
            One map per output channel, at full resolution.
        """
        with full_precision(features):
            maps: Tensor = self.head(features.float())
        return maps

    def forward(
        self, embedding: Float[Tensor, "b c h w"], skips: Sequence[Tensor], time: Tensor | None = None
    ) -> list[Tensor]:
        """Decode, without the head.

        Args:
            embedding: Features of the coarsest level.
            skips: The encoder's features by level, finest first.
            time: Time embedding, or ``None``.

        Returns:
            Features by level, finest first.
        """
        features: list[Tensor] = []
        x = embedding
        for index in reversed(range(len(self.levels))):
            x = self.levels[index](torch.cat([self.up[index](x), skips[index]], dim=1), time)
            features.insert(0, x)
        return features


class DetailHead(nn.Module):
    """Unfolds cells to pixels, meets the finest features of the Condition Model there, and gives the maps.

    A Diffusion Model that sees the image through U-SA at 1/4 resolution can't know where inside a cell an edge runs;
    what it says of the 4×4 pixels of a cell is blocky. The Condition Model knows: its last decoder features are
    brought to a few channels at full resolution, once per image, and added to those of each member before a last
    3×3 convolution, whose weights are the same for all pixels of a cell. Both terms come before a SiLU, so a
    member may take the edge, move away from it, or close it: a sum with the anchor's logits would give all members
    the same edge, and would have a meaning for the target x0 only.

    Deviation: in the paper the Anchor Condition enters the encoder alone. At full resolution (``detail_channels:
    0``) nothing of this is there.

    Args:
        channels: Of the Diffusion Model's finest features.
        condition_channels: Of the Condition Model's finest features.
        out_channels: K.
        patches: Sides of the cells of the Condition Model and of the Diffusion Model.
        width: Channels at full resolution.
    """

    def __init__(
        self, channels: int, condition_channels: int, out_channels: int, *, patches: tuple[int, int], width: int
    ) -> None:
        super().__init__()
        coarse, fine = patches[1], patches[0]
        self.norm_c, self.norm_d = group_norm(condition_channels), group_norm(channels)
        self.from_condition = nn.Conv2d(condition_channels, width * fine**2, 1)
        self.from_cells = nn.Conv2d(channels, width * coarse**2, 3, padding=1)
        self.unfold_c, self.unfold_d = nn.PixelShuffle(fine), nn.PixelShuffle(coarse)
        self.to_maps = nn.Conv2d(width, out_channels, 3, padding=1)

    def encode_image(self, f_c: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d gh gw"]:
        """Bring the Condition Model's finest decoder features to full resolution. Once per image is enough."""
        detail: Tensor = self.unfold_c(self.from_condition(F.silu(self.norm_c(f_c))))
        return detail

    def forward(self, f_d: Float[Tensor, "b c h w"], detail: Float[Tensor, "#b d gh gw"]) -> Float[Tensor, "b k gh gw"]:
        """Give one map per output channel, the last layer in full precision.

        Args:
            f_d: Finest features of the Diffusion Model.
            detail: From `encode_image`.

        Returns:
            Maps at full resolution.
        """
        cells = self.from_cells(F.silu(self.norm_d(f_d)))
        h = F.silu(self.unfold_d(cells) + detail)
        with full_precision(h):
            maps: Tensor = self.to_maps(h.float())
        return maps
