"""MedSegDiff + TransUNet: a vision transformer in place of the blocks at the bottom of MedSegDiff's denoiser."""

from __future__ import annotations

from typing import cast

from torch import nn

from medsegdiff.config.networks.guided import MSDTransUNetConfig, V1Config
from medsegdiff.models.base import MODELS
from medsegdiff.models.medsegdiff_v1 import MedSegDiffV1
from medsegdiff.nn.transformer import TransformerBottom


@MODELS.register(
    "medsegdiff-transunet",
    paper="Wu et al., MedSegDiff-V2, AAAI: MedSegDiff + TransUNet, or MSD-Trans",
    year=2024,
    condition_cached=False,
)
class MedSegDiffTransUNet(MedSegDiffV1):
    """MedSegDiff whose denoiser is a TransUNet: what the paper shows to be worse than either.

    Conditioning is that of MedSegDiff. The encoder and decoder around the transformer are guided diffusion's, not
    TransUNet's ResNet-50 and its bilinear decoder: those know no time.

    Source: MedSegDiff-V2, Main Results; table 5, row MSD-Trans; Chen et al. (2021), arXiv:2102.04306.
    """

    def _bottom(self, config: V1Config) -> nn.Module | None:
        own = cast(MSDTransUNetConfig, config)
        return TransformerBottom(
            own.channels * own.multiples[-1],
            time_dim=4 * own.channels,
            dim=own.transformer_dim,
            depth=own.transformer_depth,
            heads=own.transformer_heads,
            ratio=own.transformer_ratio,
        )
