"""How SwinBTS makes a grid of tokens coarser and finer, and finds local features, on two or three dimensions."""

from __future__ import annotations

from jaxtyping import Float
from monai.networks.layers.factories import Conv, Norm
from torch import Tensor, nn
from torch.nn import functional as F


class Separable(nn.Sequential):
    """ReLU, then a convolution by channel between two 1×1 convolutions, with no activation among the three, and a norm.

    Takes and gives tokens.

    Source: SwinBTS, NFCE, as in the released code.
    """

    def __init__(self, dim: int, *, spatial_dims: int) -> None:
        convolution = Conv["conv", spatial_dims]
        super().__init__(
            nn.ReLU(),
            convolution(dim, dim, kernel_size=1),
            convolution(dim, dim, kernel_size=3, padding=1, groups=dim),
            convolution(dim, dim, kernel_size=1),
            Norm["batch", spatial_dims](dim),
        )

    def forward(self, x: Float[Tensor, "b *s dim"]) -> Float[Tensor, "b *s dim"]:
        """Apply the layers."""
        x = x.movedim(-1, 1)
        for layer in self:
            x = layer(x)
        return x.movedim(1, -1)


class Down(nn.Module):
    """Local features are added, then cells of two tokens a side become one token of twice the width."""

    def __init__(self, dim: int, *, spatial_dims: int) -> None:
        super().__init__()
        self.local = Separable(dim, spatial_dims=spatial_dims)
        self.merge = Conv["conv", spatial_dims](dim, 2 * dim, kernel_size=2, stride=2)
        self.norm = nn.LayerNorm(2 * dim)

    def forward(self, x: Float[Tensor, "b *s dim"]) -> Float[Tensor, "b *t dim2"]:
        """Give tokens of half the grid."""
        merged = self.merge((x + self.local(x)).movedim(-1, 1)).movedim(1, -1)
        return F.gelu(self.norm(merged))


class Up(nn.Module):
    """A norm, local features are added, then each token becomes a cell of two tokens a side of half the width."""

    def __init__(self, dim: int, *, spatial_dims: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.local = Separable(dim, spatial_dims=spatial_dims)
        self.part = Conv["convtrans", spatial_dims](dim, dim // 2, kernel_size=2, stride=2)

    def forward(self, x: Float[Tensor, "b *s dim"]) -> Float[Tensor, "b *t dim2"]:
        """Give tokens of twice the grid."""
        x = self.norm(x)
        parted: Tensor = self.part((x + self.local(x)).movedim(-1, 1))
        return parted.movedim(1, -1)


class Expand(nn.Module):
    """Each token becomes a cell of tokens of the same width."""

    def __init__(self, dim: int, *, patch: int, spatial_dims: int) -> None:
        super().__init__()
        self.cell = (patch,) * spatial_dims
        self.linear, self.norm = nn.Linear(dim, patch**spatial_dims * dim, bias=False), nn.LayerNorm(dim)

    def forward(self, x: Float[Tensor, "b *s dim"]) -> Float[Tensor, "b *t dim"]:
        """Give tokens of the finer grid."""
        dims = len(self.cell)
        x = self.linear(x).unflatten(-1, (*self.cell, -1))  # (b, *s, *cell, dim)
        x = x.permute(0, *(axis for side in range(1, 1 + dims) for axis in (side, side + dims)), -1)
        for side in range(1, 1 + dims):
            x = x.flatten(side, side + 1)
        out: Tensor = self.norm(x)
        return out
