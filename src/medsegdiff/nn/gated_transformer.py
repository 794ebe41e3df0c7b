"""The transformer of BAT: layers that say where key patches are, and raise what they know of those."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medsegdiff.nn.blocks import conv_norm_relu

Gated = tuple[Float[Tensor, "b c h w"], Float[Tensor, "b 1 h w"]]
"""Features, and logits of the map of key patches."""


class BoundaryGate(nn.Sequential):
    """Finds key patches and raises their features: x ← x·M + x.

    Two 3×3 convolutions and a 1×1 convolution, as released; in the paper, at second hand, the last alone.

    Source: Wang et al. (2021), arXiv:2110.03864, boundary-wise attention gate.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(conv_norm_relu(dim, dim), conv_norm_relu(dim, dim), nn.Conv2d(dim, 1, 1))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Gated:
        """Give features of the same shape, and the logits of M."""
        logits = x
        for layer in self:
            logits = layer(logits)
        return x * logits.sigmoid() + x, logits


class AtrousGate(nn.Module):
    """The same with several reaches side by side, at the end."""

    def __init__(self, dim: int, *, width: int) -> None:
        super().__init__()
        reaches = [conv_norm_relu(dim, width, 3, dilation=dilation) for dilation in (1, 2, 4, 6)]
        self.branches = nn.ModuleList([conv_norm_relu(dim, width, 1), *reaches])
        self.mix = nn.Conv2d(5 * width, 1, 1, bias=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Gated:
        """Give features of the same shape, and the logits of M."""
        logits = self.mix(torch.cat([branch(x) for branch in self.branches], dim=1))
        return x * logits.sigmoid() + x, logits


class Added(nn.Module):
    """Adds what a layer says to what it was told, and normalises the sum.

    Source: Vaswani et al. (2017), section 3.1.
    """

    def __init__(self, dim: int, *, dropout: float) -> None:
        super().__init__()
        self.dropout, self.norm = nn.Dropout(dropout), nn.LayerNorm(dim)

    def forward(self, x: Float[Tensor, "b l c"], said: Float[Tensor, "b #l c"]) -> Float[Tensor, "b l c"]:
        """Give the sum, normalised."""
        out: Tensor = self.norm(x + self.dropout(said))
        return out


def perceptron(dim: int, hidden: int, *, dropout: float) -> nn.Sequential:
    """Make the two layers that each token goes through by itself."""
    return nn.Sequential(nn.Linear(dim, hidden), nn.LeakyReLU(0.01), nn.Dropout(dropout), nn.Linear(hidden, dim))


class TokenLayer(nn.Module):
    """Attention among tokens and a perceptron, each added and then normalised; then a gate.

    Positions enter queries and keys alone, in each layer anew.

    Source: Carion et al. (2020), DETR, appendix A.3; Wang et al. (2021), section 2.1.
    """

    def __init__(self, dim: int, *, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True)
        self.mlp = perceptron(dim, hidden, dropout=dropout)
        self.added_attention, self.added_mlp = Added(dim, dropout=dropout), Added(dim, dropout=dropout)
        self.gate = BoundaryGate(dim)

    def forward(self, x: Float[Tensor, "b c h w"], positions: Float[Tensor, "1 l c"]) -> Gated:
        """Give features of the same shape, and the logits of M."""
        size, tokens = x.shape[-2:], x.flatten(2).transpose(1, 2)  # (b, h*w, c)
        placed = tokens + positions
        tokens = self.added_attention(tokens, self.attention(placed, placed, tokens, need_weights=False)[0])
        tokens = self.added_mlp(tokens, self.mlp(tokens))
        gated: Gated = self.gate(tokens.transpose(1, 2).unflatten(2, size))
        return gated


class QueryLayer(nn.Module):
    """What one query asks itself, then the tokens, then a perceptron, each added and then normalised.

    Source: Carion et al. (2020), DETR, appendix A.3.
    """

    def __init__(self, dim: int, *, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.itself = nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True)
        self.attention = nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True)
        self.mlp = perceptron(dim, hidden, dropout=dropout)
        self.added_itself, self.added_attention, self.added_mlp = (Added(dim, dropout=dropout) for _ in range(3))

    def forward(
        self,
        found: Float[Tensor, "b 1 c"],
        query: Float[Tensor, "1 1 c"],
        tokens: Float[Tensor, "b l c"],
        positions: Float[Tensor, "1 l c"],
    ) -> Float[Tensor, "b 1 c"]:
        """Give what is found by now."""
        asked = found + query
        found = self.added_itself(found, self.itself(asked, asked, found, need_weights=False)[0])
        seen = self.attention(found + query, tokens + positions, tokens, need_weights=False)[0]
        found = self.added_attention(found, seen)
        out: Tensor = self.added_mlp(found, self.mlp(found))
        return out


class QueryDecoder(nn.Module):
    """Lets one learned query look at all tokens, and all tokens at what it found; then a gate.

    With one key the attention of the tokens is 1 everywhere: each gets the same vector. What the query is in the first
    layer is zeros, so the weights of its first attention to itself do nothing; they stay what they are.

    Source: the code released with Wang et al. (2021); the paper has no such decoder.
    """

    def __init__(self, dim: int, *, depth: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.rand(1, dim))
        layers = [QueryLayer(dim, heads=heads, hidden=hidden, dropout=dropout) for _ in range(depth)]
        idle = layers[0].itself
        weights = idle.get_parameter("in_proj_weight").detach()
        del idle.in_proj_weight
        idle.register_buffer("in_proj_weight", weights)
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True)
        self.mlp = perceptron(dim, 4 * dim, dropout=dropout)
        self.added_attention, self.added_mlp = Added(dim, dropout=dropout), Added(dim, dropout=dropout)
        self.gate = AtrousGate(dim, width=dim // 2)

    def forward(self, x: Float[Tensor, "b c h w"], positions: Float[Tensor, "1 l c"]) -> Gated:
        """Give features of the same shape, and the logits of M."""
        size, tokens = x.shape[-2:], x.flatten(2).transpose(1, 2)
        found = torch.zeros_like(tokens[:, :1])
        for layer in self.layers:
            found = layer(found, self.query[None], tokens, positions)
        found = self.norm(found)
        tokens = self.added_attention(tokens, self.attention(tokens, found, found, need_weights=False)[0])
        tokens = self.added_mlp(tokens, self.mlp(tokens))
        gated: Gated = self.gate(tokens.transpose(1, 2).unflatten(2, size))
        return gated
