"""FAT-Net: a ResNet and a transformer look at a skin lesion side by side."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from medsegdiff.config.networks.fatnet import FATNetConfig
from medsegdiff.models.base import MODELS
from medsegdiff.models.deterministic import DeterministicModel, Heads
from medsegdiff.models.pretrained import Layout, resnet
from medsegdiff.nn.blocks import conv_norm_relu
from medsegdiff.nn.resnet import UNITS, ResNetEncoder
from medsegdiff.nn.transformer import TransformerLayer


class FeatureAdaptation(nn.Module):
    """Adapts features several times with the same weights: each time the sum of a 3×3 and a 1×1 convolution, rectified.

    Source: Wu et al. (2022), the feature adaptation module; that passes share weights, from the released code.
    """

    def __init__(self, channels: int, *, passes: int) -> None:
        super().__init__()
        self.passes = passes
        self.conv3, self.conv1 = nn.Conv2d(channels, channels, 3, padding=1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Give features of the same shape."""
        for _ in range(self.passes):
            x = F.relu(self.conv3(x)) + F.relu(self.conv1(x))
        return x


class SqueezeExcitation(nn.Module):
    """Weighs channels by their means over the image.

    Source: Hu et al. (2018), Squeeze-and-Excitation Networks, equations 2 to 4, with r = 16.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 16)
        self.squeeze, self.excite = nn.Linear(channels, inner, bias=False), nn.Linear(inner, channels, bias=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Give weighted features."""
        weights = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean(dim=(2, 3))))))
        return x * weights[:, :, None, None]


class UpStep(nn.Sequential):
    """Doubles the grid between two 1×1 convolutions, in a quarter of the channels; all with batch norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        inner = in_channels // 4
        super().__init__(
            conv_norm_relu(in_channels, inner, 1, bias=True),
            nn.ConvTranspose2d(inner, inner, 3, stride=2, padding=1, output_padding=1),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            conv_norm_relu(inner, out_channels, 1, bias=True),
        )


class TwoBranches(nn.Module):
    """ResNet-34 without its pooling, and DeiT-tiny on patches of a pixel of its last stage; fused, then decoded.

    The tokens carry no position, and no norm follows the last layer: as released, though the transformer that the
    authors began with has both. Any multiple of the patch is a size; the released code takes 224² alone. Deviation: a
    fourth step of the decoder that the released network holds and never calls is not built.

    Source: Wu et al. (2022), doi:10.1016/j.media.2021.102327, and the released code.
    """

    def __init__(
        self,
        image_channels: int,
        mask_channels: int,
        *,
        widths: Sequence[int],
        blocks: Sequence[int],
        dim: int,
        depth: int,
        heads: int,
    ) -> None:
        super().__init__()
        first, last = widths[0], widths[-1]
        self.encoder = ResNetEncoder(image_channels, widths=widths, blocks=blocks, pool=False)
        self.patches = nn.Conv2d(image_channels, dim, self.encoder.stride, stride=self.encoder.stride)
        self.layers = nn.Sequential(*(TransformerLayer(dim, heads=heads, ratio=4, eps=1e-6) for _ in range(depth)))
        self.to_features = nn.Conv2d(dim, last, 1)
        self.weigh, self.fuse = SqueezeExcitation(2 * last), nn.Conv2d(2 * last, last, 1)
        coarsest = len(widths) - 1
        self.adapt = nn.ModuleList(
            FeatureAdaptation(width, passes=2 * (coarsest - level)) for level, width in enumerate(widths[:-1])
        )
        self.up = nn.ModuleList(UpStep(b, a) for a, b in pairwise(widths))
        self.head = nn.Sequential(
            nn.ConvTranspose2d(first, first // 2, 4, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(first // 2, first // 2, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(first // 2, mask_channels, 3, padding=1),
        )

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """Segment.

        Args:
            image: Normalised image.

        Returns:
            Logits.
        """
        _, *skips, local = self.encoder(image)
        tokens = self.patches(image)
        size = (tokens.shape[-2], tokens.shape[-1])
        seen = self.layers(tokens.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, size)  # (b, dim, h, w)
        x = self.fuse(self.weigh(torch.cat([local, self.to_features(seen)], dim=1)))
        for level in reversed(range(len(self.up))):
            x = self.up[level](x) + self.adapt[level](skips[level])
        logits: Tensor = self.head(x)
        return logits


_LAYER = {"attn.qkv": "qkv", "attn.proj": "out", "norm1": "norm_attention", "norm2": "norm_mlp"}
_PATCHES = (
    (r"^patch_embed\.proj\.", "patches."),
    *((rf"^(?:transformers|blocks)\.(\d+)\.{old}\.", rf"layers.\1.{new}.") for old, new in _LAYER.items()),
    *((rf"^(?:transformers|blocks)\.(\d+)\.mlp\.fc{n}\.", rf"layers.\1.mlp.{2 * n - 2}.") for n in (1, 2)),
)
DEIT = Layout(
    what="DeiT-tiny as its authors saved it",
    mark=r"^blocks\.0\.attn\.qkv\.weight$",
    fills=r"^condition_model\.(?:patches|layers)\.",
    keys=(*_PATCHES, (r"^", "condition_model.")),
    spare=(r"^(?:cls|dist)_token$", r"^pos_embed$", r"^norm\.", r"^head(?:_dist)?\."),
)
"""What the transformer began with."""
_STEP = {"conv1": "0.0", "norm1": "0.1", "up.0": "1", "up.1": "2", "conv3": "4.0", "norm3": "4.1"}
ORIGINAL_KEYS = (
    (r"^first(conv|bn)\.", r"encoder.\g<1>1."),
    (r"^encoder(\d)\.", r"encoder.layer\1."),
    *_PATCHES,
    (r"^conv_seq_img\.", "to_features."),
    (r"^se\.fc\.0\.", "weigh.squeeze."),
    (r"^se\.fc\.2\.", "weigh.excite."),
    (r"^conv2d\.", "fuse."),
    *((rf"^FAMBlock{n}\.", f"adapt.{n - 1}.") for n in (1, 2, 3)),
    *((rf"^decoder{n}\.{old}\.", f"up.{n - 2}.{new}.") for n in (2, 3, 4) for old, new in _STEP.items()),
    *((rf"^final_conv{n}\.", f"head.{2 * n - 2}.") for n in (1, 2, 3)),
)
"""Names of the released weights (patterns) → names within `TwoBranches`."""
ORIGINAL_UNUSED = (r"^decoder1\.", r"^FAM\d\.")
"""What a released checkpoint holds beside them: a step that is never called, and copies of ``FAMBlock1`` to ``3``."""


@MODELS.register(
    "fatnet",
    kind="deterministic",
    paper="Wu et al., FAT-Net: Feature adaptive transformers for automated skin lesion segmentation, MedIA",
    year=2022,
    licence="none",
    pretrained="ResNet-34 and DeiT-tiny (distilled) on ImageNet",
)
class FATNet(DeterministicModel):
    """FAT-Net.

    Source: Wu et al. (2022), doi:10.1016/j.media.2021.102327.
    """

    units = (*UNITS, TransformerLayer, FeatureAdaptation)
    layouts = (resnet("ResNet-34", "condition_model.encoder"), DEIT)

    def __init__(self, config: FATNetConfig, *, image_channels: int, mask_channels: int) -> None:
        super().__init__(stride=2 ** len(config.widths))
        self.condition_model = TwoBranches(
            image_channels,
            mask_channels,
            widths=config.widths,
            blocks=config.blocks,
            dim=config.dim,
            depth=config.depth,
            heads=config.heads,
        )

    def segment(self, image: Float[Tensor, "b c h w"]) -> Heads:
        """Segment."""
        return Heads(self.condition_model(image))
