"""Spatial attention as it was before U-SA: the row "SA" of the paper's ablation."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

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
