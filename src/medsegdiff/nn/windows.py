"""Attention within windows that every other block shifts, on grids of two or three dimensions: Swin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Int
from monai.networks.layers import DropPath, trunc_normal_
from monai.networks.nets.swin_unetr import compute_mask, get_window_size, window_partition, window_reverse
from torch import Tensor, nn
from torch.nn import functional as F

from medsegdiff.nn.tokens import Branch, perceptron


@cache
@cache
def relative_index(full: tuple[int, ...], window: tuple[int, ...], *, exact: bool) -> Int[np.ndarray, "n n"]:
    """Number the offsets between the tokens of a window: rows of a table of biases.

    Source: Liu et al. (2021), Swin Transformer, section 3.2, relative position bias.

    Args:
        full: Sides of the windows that the table is made for: it has ∏(2 side − 1) rows.
        window: Sides of this window, none longer; it is smaller where the grid is.
        exact: Whether a smaller window takes the first rows and columns of the numbers of a full one, as several
            released codes do, so that its pairs of tokens get biases of other offsets.

    Returns:
        Number of the offset of each pair of tokens.
    """
    places = np.stack(np.unravel_index(np.arange(math.prod(full if exact else window)), full if exact else window))
    offsets = places[:, :, None] - places[:, None, :] + np.reshape(full, (-1, 1, 1)) - 1  # (d, n, n), from 0
    index = np.ravel_multi_index(tuple(offsets), [2 * side - 1 for side in full])
    tokens = math.prod(window)
    return index[:tokens, :tokens]


class WindowAttention(nn.Module):
    """Attention among the tokens of a window, with a learned bias for each offset; or of windows that are shifted.

    Grids that windows do not fill are filled up with zeros, which take part. The parting into windows, their shift and
    the mask that keeps apart what a shift brings together are MONAI's.

    Source: Liu et al. (2021), Swin Transformer, equation 4 and section 3.2; of volumes, Liu et al. (2022).

    Args:
        dim: Width of a token, a multiple of ``heads``.
        heads: Of attention.
        window: Sides.
        shifted: Whether windows are shifted by half their sides.
        exact: See `relative_index`.
    """

    def __init__(self, dim: int, *, heads: int, window: Sequence[int], shifted: bool, exact: bool = False) -> None:
        super().__init__()
        self.heads, self.window, self.exact = heads, tuple(window), exact
        self.shift = tuple(side // 2 if shifted else 0 for side in window)
        self.table = nn.Parameter(torch.zeros(math.prod(2 * side - 1 for side in window), heads))
        trunc_normal_(self.table, std=0.02)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "b *s dim"]) -> Float[Tensor, "b *s dim"]:
        """Attend."""
        sides = x.shape[1:-1]
        window, shift = get_window_size(sides, self.window, self.shift)
        filled = [-(-side // of) * of for side, of in zip(sides, window, strict=True)]
        beyond = [(0, more - side) for side, more in zip(sides, filled, strict=True)]
        x = F.pad(x, [0, 0, *(amount for pair in reversed(beyond) for amount in pair)])
        axes = tuple(range(1, 1 + len(sides)))
        apart = compute_mask(filled, window, shift, x.device) if any(shift) else None
        parts = window_partition(x.roll([-by for by in shift], axes), window)  # (b*w, n, dim)
        seen = self._attend(parts, window, apart)
        x = window_reverse(seen.unflatten(1, window), window, (len(x), *filled)).roll(shift, axes)
        return x[(slice(None), *(slice(side) for side in sides))]

    def _attend(
        self, tokens: Float[Tensor, "m n dim"], window: tuple[int, ...], apart: Float[Tensor, "w n n"] | None
    ) -> Float[Tensor, "m n dim"]:
        """Let the tokens of each window look at each other, but for those that a shift brought together."""
        index = torch.from_numpy(relative_index(self.window, window, exact=self.exact))
        index = index.to(tokens.device, non_blocking=True)
        bias = self.table[index].permute(2, 0, 1)[None]  # (1, heads, n, n)
        if apart is not None:
            bias = bias + apart[:, None]  # (w, heads, n, n)
        parts = self.qkv(tokens).unflatten(0, (-1, len(bias))).unflatten(-1, (3, self.heads, -1))
        q, k, v = parts.permute(3, 0, 1, 4, 2, 5)  # (b, w, heads, n, d)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        out: Tensor = self.out(seen.transpose(2, 3).flatten(3).flatten(0, 1))  # (m, n, dim)
        return out


def window_blocks(
    dim: int, *, heads: int, window: Sequence[int], drops: Sequence[float], exact: bool = False
) -> nn.Sequential:
    """Make Swin blocks, of which every other shifts its windows.

    Args:
        dim: Width of a token.
        heads: Of attention.
        window: Sides.
        drops: Share of the samples that skip a branch while training (stochastic depth), by block.
        exact: See `relative_index`.

    Returns:
        Blocks of a branch with attention and one with a perceptron of 4 · dim, for tokens on a grid.
    """
    blocks = nn.Sequential()
    for number, drop in enumerate(drops):
        attention = WindowAttention(dim, heads=heads, window=window, shifted=number % 2 == 1, exact=exact)
        by_itself = perceptron(dim, ratio=4)
        blocks.append(nn.Sequential(*(Branch(dim, layer, drop=DropPath(drop)) for layer in (attention, by_itself))))
    return blocks
