"""Attention: layers of vision transformers, and the spatial attention SA of the paper's ablation."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from medsegdiff.nn.ss_former import positions


class TransformerLayer(nn.Module):
    """Attention of every token to all, then a perceptron, each after a norm and with a way around it.

    Source: Dosovitskiy et al. (2021), An Image is Worth 16×16 Words, equations 2 and 3; dropout: appendix B.1.

    Args:
        dim: Width of a token, a multiple of ``heads``.
        heads: Of the attention.
        ratio: Hidden width of the perceptron over ``dim``.
        dropout: Share of the values that is dropped after each layer of the perceptron, while training.
        eps: Of the norms.
    """

    def __init__(self, dim: int, *, heads: int, ratio: int, dropout: float = 0.0, eps: float = 1e-5) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(dim, eps=eps), nn.LayerNorm(dim, eps=eps)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, ratio * dim), nn.GELU(), nn.Linear(ratio * dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Float[Tensor, "b l dim"]) -> Float[Tensor, "b l dim"]:
        """Apply both."""
        parts = self.qkv(self.norm_attention(tokens)).unflatten(-1, (3, self.heads, -1))  # (b, l, 3, heads, d)
        q, k, v = parts.permute(2, 0, 3, 1, 4)  # (b, heads, l, d)
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # (b, l, heads*d)
        tokens = tokens + self.out(seen)  # equation 2
        widen, bend, leave = self.mlp
        hidden = self.dropout(bend(widen(self.norm_mlp(tokens))))
        out: Tensor = tokens + self.dropout(leave(hidden))  # equation 3
        return out


def positions_at(table: Float[Tensor, "1 n dim"], size: tuple[int, int]) -> Float[Tensor, "1 l dim"]:
    """Resize learned positions of a square grid to that of another image, linearly, corner on corner.

    Source: Dosovitskiy et al. (2021), section 3.2, fine-tuning at higher resolution.

    Args:
        table: Of n = side × side places, row by row.
        size: Height and width of the grid in question.

    Returns:
        A position for each of its places; the table itself where the size is its own.
    """
    side = math.isqrt(table.shape[1])
    if size == (side, side):
        return table
    grid = table.transpose(1, 2).unflatten(2, (side, side))  # (1, dim, side, side)
    return F.interpolate(grid, size, mode="bilinear", align_corners=True).flatten(2).transpose(1, 2)


class TransformerBottom(nn.Module):
    """Takes the coarsest features of a UNet as tokens, lets them look at each other, and gives features back.

    Positions are sines and cosines, so that an image may have any size; TransUNet learns them for one.

    Source: Chen et al. (2021), TransUNet, arXiv:2102.04306, section 3.
    """

    def __init__(self, channels: int, *, time_dim: int, dim: int, depth: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.dim = dim
        self.enter = nn.Conv2d(channels, dim, 1)
        self.time = nn.Linear(time_dim, dim)
        self.layers = nn.Sequential(*(TransformerLayer(dim, heads=heads, ratio=ratio) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.leave = nn.Conv2d(dim, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"], time: Float[Tensor, "#b t"]) -> Float[Tensor, "b c h w"]:
        """Let every place look at all others, at a time that is given by its embedding."""
        h, w = x.shape[-2:]
        tokens = self.enter(x).flatten(2).transpose(1, 2)  # (b, h*w, dim)
        place = positions(h, w, self.dim, x.device).to(tokens.dtype)
        tokens = self.norm(self.layers(tokens + place + self.time(F.silu(time))[:, None]))
        out: Tensor = self.leave(tokens.transpose(1, 2).unflatten(2, (h, w)))  # (b, c, h, w)
        return out


KERNEL = 7
"""Side of the convolution, as in the source."""


class SpatialAttention(nn.Module):
    r"""Points the Diffusion Model to where to look, sure of the anchor: no blur, no maximum (equation 4 left out).

    .. math:: M = \mathrm{sigmoid}([\mathrm{mean}_c f_c; \max_c f_c] * k_{7×7})

    M then stands for the attention map in equation 5.

    Source: Woo et al. (2018), arXiv:1807.06521, equation 3; MedSegDiff-V2, table 4, column SA.
    """

    def __init__(self) -> None:
        super().__init__()
        self.to_map = nn.Conv2d(2, 1, KERNEL, padding=KERNEL // 2)

    def forward(self, f_c: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        """Compute the attention map, for `apply_gate`. It depends on the image alone, so once per image is enough.

        Args:
            f_c: Decoder features of the Condition Model.

        Returns:
            Weights in (0, 1).
        """
        pooled = torch.cat([f_c.mean(dim=1, keepdim=True), f_c.amax(dim=1, keepdim=True)], dim=1)
        return torch.sigmoid(self.to_map(pooled))
