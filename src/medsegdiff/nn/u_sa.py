"""Uncertain Spatial Attention (U-SA), by which the Anchor Condition enters the Diffusion Model."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

SIGMA_RANGE = (0.3, 8.0)
"""Bounds of the learned σ in pixels: below, the kernel is a single tap; above, it outgrows its taps."""


class UncertainSpatialAttention(nn.Module):
    r"""Lets the segmentation features of the Condition Model point the Diffusion Model to where to look.

    .. math::
        f_{anc} = \max(f_c * k_{Gauss}, f_c), \qquad
        f_d' = \mathrm{sigmoid}(f_{anc} * k_{conv1×1}) \cdot f_d + f_d

    A learned Gaussian blurs the anchor, as it may not be accurate; the maximum keeps what was sharp.

    Source: MedSegDiff-V2, equations 4 and 5.
    """

    def __init__(self, channels: int, *, sigma: float = 4.0, taps: int = 31) -> None:
        super().__init__()
        self.taps = taps
        self.sigma = nn.Parameter(torch.full((channels,), sigma))
        self.to_map = nn.Conv2d(channels, 1, 1)

    def kernel(self) -> Float[Tensor, "c taps"]:
        """Sample the Gaussian of each channel: weights that sum to 1."""
        offsets = torch.arange(self.taps, device=self.sigma.device) - self.taps // 2
        sigma = self.sigma.float().clamp(*SIGMA_RANGE)
        return torch.softmax(-0.5 * (offsets / sigma[:, None]) ** 2, dim=1)  # k_Gauss, separable

    def smooth(self, f_c: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Blur each channel with its own Gaussian, along h and along w; borders are repeated.

        As products with banded matrices: equal to the convolution, and 2 to 4 times as fast in training.

        Args:
            f_c: Decoder features of the Condition Model.

        Returns:
            Blurred features.
        """
        along_h, along_w = (blur_matrix(self.kernel(), size).to(f_c.dtype) for size in f_c.shape[-2:])
        return torch.einsum("cij,bcjw,clw->bcil", along_h, f_c, along_w)

    def forward(self, f_c: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        """Compute the attention map, for `apply_gate`. It depends on the image alone, so once per image is enough.

        Args:
            f_c: Decoder features of the Condition Model.

        Returns:
            Weights in (0, 1).
        """
        f_anc = torch.maximum(self.smooth(f_c), f_c)  # equation 4
        return torch.sigmoid(self.to_map(f_anc))  # the first factor of equation 5


def blur_matrix(kernel: Float[Tensor, "c taps"], size: int) -> Float[Tensor, "c size size"]:
    """Write a convolution along one axis as a matrix, the border pixel repeated beyond the border.

    Args:
        kernel: Weights by channel, an odd number.
        size: Pixels along the axis.

    Returns:
        Row i holds the weights of all pixels for pixel i.
    """
    channels, taps = kernel.shape
    offsets = torch.arange(taps, device=kernel.device) - taps // 2
    sources = (torch.arange(size, device=kernel.device)[:, None] + offsets).clamp(0, size - 1)  # (size, taps)
    matrix = kernel.new_zeros(channels, size, size)
    return matrix.scatter_add(2, sources.expand(channels, -1, -1), kernel[:, None].expand(-1, size, -1))


def apply_gate(gate: Float[Tensor, "#b 1 h w"], f_d: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
    """Enhance diffusion features where the gate is open (equation 5).

    Args:
        gate: Weights in (0, 1).
        f_d: Encoder features of the Diffusion Model.

    Returns:
        gate · f_d + f_d.
    """
    return gate * f_d + f_d
