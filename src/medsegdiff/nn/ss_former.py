"""The Spectrum-Space Transformer (SS-Former), by which the Semantic Condition enters the Diffusion Model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medsegdiff.nn.nbp_filter import BY_FFT, NBPFilter, Weigh, affinity

KeysValues = tuple[Float[Tensor, "#b l d"], Float[Tensor, "#b l d"]]
"""What tokens give to those that ask."""


def positions(h: int, w: int, dim: int, device: torch.device) -> Float[Tensor, "l dim"]:
    """Make fixed 2-D sin-cos positions: half of the channels tell the row, half the column.

    Args:
        h: Rows of tokens.
        w: Columns of tokens.
        dim: Channels, a multiple of 4.
        device: Where they shall be; kept there.

    Returns:
        One vector per token, row by row.
    """
    return _positions(h, w, dim, device)


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # what is kept must serve training too
def _positions(h: int, w: int, dim: int, device: torch.device) -> Tensor:
    frequencies = torch.exp(-math.log(10_000) * torch.arange(dim // 4, device="cpu") / (dim // 4))
    rows, columns = (torch.arange(n, device="cpu")[:, None] * frequencies for n in (h, w))
    along_h = torch.cat([rows.sin(), rows.cos()], dim=1)[:, None].expand(h, w, dim // 2)
    along_w = torch.cat([columns.sin(), columns.cos()], dim=1)[None].expand(h, w, dim // 2)
    return torch.cat([along_h, along_w], dim=-1).reshape(h * w, dim).to(device)


class SpectrumAttention(nn.Module):
    """One of the two cross-attention-like modules of a block: attends through a filtered affinity, then refines.

    Source: MedSegDiff-V2, Semantic Condition with SS-Former; figure 1 (b).
    """

    filtering = BY_FFT

    def __init__(self, dim: int, *, mlp_ratio: int = 4, weigh: Weigh = affinity) -> None:
        super().__init__()
        self.weigh = weigh
        self.norm_q, self.norm_k, self.norm_mlp = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.to_q, self.to_k, self.to_v = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.out = nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, mlp_ratio * dim), nn.GELU(), nn.Linear(mlp_ratio * dim, dim))
        for last in (self.out.parameters(), self.mlp[-1].parameters()):
            for parameter in last:
                nn.init.zeros_(parameter)

    def keys_values(self, source: Float[Tensor, "b l d"]) -> KeysValues:
        """Make keys and values; of c⁰ they depend on the image alone.

        Args:
            source: Tokens that give them.

        Returns:
            Keys and values.
        """
        return self.to_k(self.norm_k(source)), self.to_v(source)

    def attend(
        self,
        query: Float[Tensor, "b l d"],
        keys_values: KeysValues,
        h_filter: Float[Tensor, "#b ..."] | None,
        *,
        grid: tuple[int, int],
    ) -> Float[Tensor, "b l d"]:
        r"""Gather values through the filtered affinity: :math:`f = F^{-1}(M \odot H)(v W^v)`.

        Args:
            query: Tokens that ask.
            keys_values: Of the tokens that give.
            h_filter: H over frequencies, laid out by ``filtering``; ``None`` lets everything pass.
            grid: Rows and columns of tokens.

        Returns:
            f, before the output projection.
        """
        keys, values = keys_values
        weights = self.weigh(self.to_q(self.norm_q(query)), keys)  # A (b l l), whose 4-D transform is M
        if h_filter is not None:
            weights = self.filtering.band_pass(weights, h_filter, *grid)
        return weights.to(values.dtype) @ values

    def forward(
        self,
        query: Float[Tensor, "b l d"],
        keys_values: KeysValues,
        h_filter: Float[Tensor, "#b ..."] | None,
        *,
        around: Float[Tensor, "#b l d"],
        grid: tuple[int, int],
    ) -> Float[Tensor, "b l d"]:
        """Apply the module.

        Args:
            query: Tokens that ask.
            keys_values: Of the tokens that give.
            h_filter: H over frequencies, laid out by ``filtering``; ``None`` lets everything pass.
            around: What the result is added to: the condition, which flows from module to module.
            grid: Rows and columns of tokens.

        Returns:
            The next condition tokens.
        """
        c = around + self.out(self.attend(query, keys_values, h_filter, grid=grid))
        refined: Tensor = c + self.mlp(self.norm_mlp(c))
        return refined


class SSFormerBlock(nn.Module):
    """Two symmetric modules: noise into semantics (query e), then semantics into noise (query c̃)."""

    def __init__(self, dim: int, *, mlp_ratio: int, weigh: Weigh = affinity) -> None:
        super().__init__()
        self.encode_noise = SpectrumAttention(dim, mlp_ratio=mlp_ratio, weigh=weigh)
        self.encode_semantics = SpectrumAttention(dim, mlp_ratio=mlp_ratio, weigh=weigh)

    def forward(
        self,
        c: Tensor,
        e: Tensor,
        filters: Sequence[Tensor | None],
        *,
        grid: tuple[int, int],
        known: tuple[Tensor, Tensor] | None = None,
    ) -> Float[Tensor, "b l d"]:
        """Let noise into semantics, then semantics into noise.

        Args:
            c: Condition tokens (b l d).
            e: Diffusion tokens (b l d), the same in all blocks.
            filters: H of the two modules; ``None`` lets everything pass.
            grid: Rows and columns of tokens.
            known: Keys and values of c, where they are known already.

        Returns:
            Condition tokens for the next block.
        """
        first, second = self.encode_noise, self.encode_semantics
        c_tilde = first(e, known or first.keys_values(c), filters[0], around=c, grid=grid)
        next_c: Tensor = second(c_tilde, second.keys_values(e), filters[1], around=c_tilde, grid=grid)
        return next_c


class SSFormer(nn.Module):
    """Mixes the embedding of the Diffusion Model with that of the Condition Model, frequency by frequency.

    N = 4 blocks of two modules, each with an NBP-Filter of its own; patch size 1 at the bottleneck. For ablations the
    filters can be left out (H ≡ 1), and tokens can weigh each other in another way.

    Source: MedSegDiff-V2, Semantic Condition with SS-Former; figure 1 (b); table 4.
    """

    filtering = BY_FFT
    """How filters are laid over affinity maps; another way is set here and in all modules within."""

    def __init__(
        self,
        condition_channels: int,
        channels: int,
        *,
        time_dim: int,
        dim: int = 512,
        num_blocks: int = 4,
        mlp_ratio: int = 4,
        filter_channels: int = 64,
        filter_blocks: int = 6,
        filtered: bool = True,
        weigh: Weigh = affinity,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.embed_c = nn.Conv2d(condition_channels, dim, 1)
        self.embed_e = nn.Conv2d(channels, dim, 1)
        self.blocks = nn.ModuleList(SSFormerBlock(dim, mlp_ratio=mlp_ratio, weigh=weigh) for _ in range(num_blocks))
        self.filters = nn.ModuleList(
            NBPFilter(time_dim=time_dim, channels=filter_channels, num_blocks=filter_blocks)
            for _ in range(2 * num_blocks * filtered)
        )
        self.project = nn.Conv2d(dim, channels, 1)

    def tabulate(self, time: Float[Tensor, "b dim"], h: int, w: int) -> list[Tensor]:
        """Evaluate all NBP-Filters; they know the time and the grid only, so a sampler does it once.

        Args:
            time: Time embedding.
            h: Rows of tokens.
            w: Columns of tokens.

        Returns:
            H of each module by radius (b rq rk), in order; none without filters.
        """
        return [nbp(h, w, time) for nbp in self.filters]

    def encode_image(self, c: Float[Tensor, "b d h w"]) -> tuple[Tensor, Tensor, Tensor]:
        """Compute what depends on the image alone.

        Args:
            c: Deepest features of the Condition Model, c⁰.

        Returns:
            Its tokens, and keys and values of the first module (b l d).
        """
        tokens = self._tokens(self.embed_c(c))
        first = cast(SSFormerBlock, self.blocks[0]).encode_noise
        return (tokens, *first.keys_values(tokens))

    def forward(
        self, e: Float[Tensor, "b c h w"], semantics: Sequence[Tensor], filters: Sequence[Tensor]
    ) -> Float[Tensor, "b c h w"]:
        """Condition the embedding of the noisy mask on what is known of the image.

        Args:
            e: Deepest features of the Diffusion Model.
            semantics: From `encode_image`.
            filters: From `tabulate`.

        Returns:
            e plus the projected c^N, for the decoder.
        """
        grid = (e.shape[-2], e.shape[-1])
        c_tokens, keys, values = semantics
        e_tokens = self._tokens(self.embed_e(e))
        laid_out = [self.filtering.spread(table, *grid) for table in filters]
        h_filters: list[Tensor | None] = [*laid_out] or [None] * (2 * len(self.blocks))
        for index, block in enumerate(self.blocks):  # c^n → c^{n+1}
            known = (keys, values) if index == 0 else None
            c_tokens = block(c_tokens, e_tokens, h_filters[2 * index : 2 * index + 2], grid=grid, known=known)
        out: Tensor = e + self.project(c_tokens.transpose(1, 2).unflatten(2, grid))  # c^N as a map
        return out

    def _tokens(self, features: Tensor) -> Tensor:
        """Lay a feature map out as tokens with positions: (b, d, h, w) → (b, h·w, d)."""
        place = positions(features.shape[-2], features.shape[-1], self.dim, features.device).to(features.dtype)
        return features.flatten(2).transpose(1, 2) + place
