"""nnU-Net's UNet for pictures and slices: what a network without diffusion reaches."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from monai.networks.blocks.dynunet_block import UnetBasicBlock
from monai.networks.nets.dynunet import DynUNet
from torch import Tensor, nn

from medsegdiff.config.networks.nnunet import NNUNetConfig
from medsegdiff.models.base import MODELS
from medsegdiff.models.deterministic import DeterministicModel, Heads


class PlainUNet(nn.Module):
    """Two convolutions a level, strided on the way down, transposed on the way up; instance norm and leaky ReLU.

    The blocks and their first weights are those of MONAI's `DynUNet`, which would resize what it says of coarser grids
    to the size of the image; here it stays on its grid, to be supervised there. Deviation: convolutions before an
    instance norm have no bias, which it would take away again.

    Source: Isensee et al. (2021), doi:10.1038/s41592-020-01008-z, methods, network architecture.
    """

    def __init__(
        self, image_channels: int, mask_channels: int, *, widths: Sequence[int], deep_supervision: bool = True
    ) -> None:
        super().__init__()
        levels = len(widths)
        self.stride = 2 ** (levels - 1)
        deep = levels - 3 if deep_supervision else 0  # neither the finest, which always speaks, nor the two coarsest
        made = DynUNet(
            2,
            image_channels,
            mask_channels,
            kernel_size=[3] * levels,
            strides=[1, *[2] * (levels - 1)],
            upsample_kernel_size=[2] * (levels - 1),
            filters=widths,
            deep_supervision=deep > 0,
            deep_supr_num=max(deep, 1),
            trans_bias=True,
        )
        self.down = nn.ModuleList([made.input_block, *made.downsamples, made.bottleneck])
        self.up = made.upsamples
        self.heads = nn.ModuleList([made.output_block, *(made.deep_supervision_heads if deep else ())])

    def forward(self, image: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b k h w"], tuple[Tensor, ...]]:
        """Segment.

        Args:
            image: Normalised image.

        Returns:
            Logits, and in training, where they are supervised, logits of the coarser grids, finest first.
        """
        features = [image]
        for down in self.down:
            features.append(down(features[-1]))
        decoded = [features.pop()]
        for up in self.up:
            decoded.append(up(decoded[-1], features.pop()))
        heads = self.heads if self.training else self.heads[:1]
        logits, *deep = (head(of) for head, of in zip(heads, reversed(decoded), strict=False))
        return logits, tuple(deep)


@MODELS.register(
    "nnunet",
    kind="deterministic",
    paper="Isensee et al., nnU-Net, Nature Methods: in 2-D",
    year=2021,
    licence="Apache-2.0",
)
class NNUNet(DeterministicModel):
    """nnU-Net's UNet; the second term of equation 3 with α = β = 1 is its Dice and cross-entropy.

    Source: Isensee et al. (2021), doi:10.1038/s41592-020-01008-z.
    """

    units = (UnetBasicBlock,)
    fewest_cells = 2

    def __init__(self, config: NNUNetConfig, *, image_channels: int, mask_channels: int) -> None:
        super().__init__(stride=2 ** (config.levels - 1))
        self.condition_model = PlainUNet(
            image_channels, mask_channels, widths=config.widths, deep_supervision=config.deep_supervision
        )

    def segment(self, image: Float[Tensor, "b c h w"]) -> Heads:
        """Segment, on all grids that are supervised."""
        return Heads(*self.condition_model(image))
