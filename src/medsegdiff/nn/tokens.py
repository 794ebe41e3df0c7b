"""What transformers of images and of volumes are made of: branches after norms, attention without biases."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class Branch(nn.Module):
    """A norm and a layer, whose result is added to what entered.

    Source: Dosovitskiy et al. (2021), An Image is Worth 16×16 Words, equations 2 and 3.

    Args:
        dim: Width of a token, the last axis.
        layer: Of tokens.
        drop: What drops values of the result, or all of it, while training.
    """

    def __init__(self, dim: int, layer: nn.Module, *, drop: nn.Module | None = None) -> None:
        super().__init__()
        self.norm, self.layer, self.drop = nn.LayerNorm(dim), layer, nn.Identity() if drop is None else drop

    def forward(self, tokens: Float[Tensor, "b *s dim"]) -> Float[Tensor, "b *s dim"]:
        """Add."""
        added: Tensor = self.drop(self.layer(self.norm(tokens)))
        return tokens + added


def perceptron(dim: int, *, ratio: int, dropout: float = 0.0) -> nn.Sequential:
    """Make the two layers that each token passes by itself, with GELU between them."""
    return nn.Sequential(nn.Linear(dim, ratio * dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(ratio * dim, dim))


class SelfAttention(nn.Module):
    """Attention of every token to all; queries, keys and values have no bias.

    Source: Vaswani et al. (2017), Attention Is All You Need, section 3.2.
    """

    def __init__(self, dim: int, *, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv, self.out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)

    def forward(self, tokens: Float[Tensor, "b l dim"]) -> Float[Tensor, "b l dim"]:
        """Attend; weights and results drop out while training."""
        parts = self.qkv(tokens).unflatten(-1, (3, self.heads, -1))  # (b, l, 3, heads, d)
        q, k, v = parts.permute(2, 0, 3, 1, 4)  # (b, heads, l, d)
        seen = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        return F.dropout(self.out(seen.transpose(1, 2).flatten(2)), self.dropout, self.training)
