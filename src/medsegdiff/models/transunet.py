"""TransUNet: a ResNet, a vision transformer on its coarsest features, and a decoder that sees them all."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from medsegdiff.config.networks.transunet import TransUNetConfig
from medsegdiff.labels import Labels
from medsegdiff.models.base import MODELS, SUPERVISIONS, Said
from medsegdiff.models.deterministic import DeterministicModel, Heads
from medsegdiff.models.pretrained import Layout
from medsegdiff.nn.blocks import conv_norm_relu
from medsegdiff.nn.losses import cross_entropy
from medsegdiff.nn.standardised_resnet import Bottleneck, StandardisedResNet
from medsegdiff.nn.transformer import TransformerLayer, positions_at


class Cup(nn.Module):
    """A step of the cascaded upsampler: twice the size, beside the encoder's features of that grid, two convolutions.

    Source: Chen et al. (2021), arXiv:2102.04306, section 3.2.2.
    """

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.mix = nn.Sequential(
            conv_norm_relu(in_channels + skip_channels, out_channels), conv_norm_relu(out_channels, out_channels)
        )

    def forward(self, x: Float[Tensor, "b c h w"], skip: Tensor | None) -> Float[Tensor, "b d h2 w2"]:
        """Go up; the last step has no skip."""
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)
        out: Tensor = self.mix(x if skip is None else torch.cat([x, skip], dim=1))
        return out


class HybridUNet(nn.Module):
    """All of TransUNet.

    Source: Chen et al. (2021), arXiv:2102.04306, figure 1; where the text is silent, the authors' released code.
    """

    def __init__(self, config: TransUNetConfig, *, image_channels: int, mask_channels: int) -> None:
        super().__init__()
        dim, places = config.dim, (config.image_size // config.stride) ** 2
        self.encoder = StandardisedResNet(
            3 if image_channels == 1 else image_channels, width=config.channels, blocks=config.blocks
        )
        self.enter = nn.Conv2d(self.encoder.channels[-1], dim, 1)
        self.positions = nn.Parameter(torch.zeros(1, places, dim))
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.Sequential(
            *(
                TransformerLayer(dim, heads=config.heads, ratio=config.ratio, dropout=config.dropout, eps=1e-6)
                for _ in range(config.depth)
            )
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        first, *widths = config.decoder_widths
        skips = [*reversed(self.encoder.channels[:-1]), 0]
        self.leave = conv_norm_relu(dim, first)
        self.up = nn.ModuleList(
            Cup(*channels) for channels in zip(config.decoder_widths[:-1], skips, widths, strict=True)
        )
        self.head = nn.Conv2d(widths[-1], mask_channels, 3, padding=1)

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """Segment; a grey image is seen in three equal channels.

        Args:
            image: Normalised image.

        Returns:
            Logits.
        """
        *skips, x = self.encoder(image.expand(-1, 3, -1, -1) if image.shape[1] == 1 else image)
        tokens = self.enter(x).flatten(2).transpose(1, 2)  # (b, h*w, dim)
        size = (x.shape[-2], x.shape[-1])
        tokens = self.dropout(tokens + positions_at(self.positions, size))
        tokens = self.norm(self.layers(tokens))
        x = self.leave(tokens.transpose(1, 2).unflatten(2, size))
        for up, skip in zip(self.up, [*reversed(skips), None], strict=True):
            x = up(x, skip)
        logits: Tensor = self.head(x)
        return logits


def fit_positions(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out the class token's position, and resize the grid of the others to that of the network."""
    name = "condition_model.positions"
    table, place = given.get(name), wanted[name].shape[1]
    if table is None or table.ndim != 3:
        return dict(given)
    if math.isqrt(table.shape[1]) ** 2 != table.shape[1]:
        table = table[:, 1:]
    side = math.isqrt(place)
    return {**given, name: positions_at(table, (side, side))}


_FLAX_LAYER = {
    "LayerNorm_0": "norm_attention",
    "LayerNorm_2": "norm_mlp",
    "MlpBlock_3.Dense_0": "mlp.0",
    "MlpBlock_3.Dense_1": "mlp.2",
    "MultiHeadDotProductAttention_1.out": "out",
}
_ATTENTION = ("query", "key", "value")
FLAX = Layout(
    what="R50+ViT-B_16 as Flax saved it (.npz)",
    mark=r"^Transformer\.posembed_input\.pos_embedding$",
    fills=r"^condition_model\.(?:(?:encoder|enter|layers|norm)\.|positions$)",
    keys=(
        (r"^Transformer\.posembed_input\.pos_embedding$", "positions"),
        *((rf"^Transformer\.encoderblock_(\d+)\.{old}\.", rf"layers.\1.{new}.") for old, new in _FLAX_LAYER.items()),
        *(
            (
                rf"^Transformer\.encoderblock_(\d+)\.MultiHeadDotProductAttention_1\.{part}\.(weight|bias)$",
                rf"layers.\1.qkv.\2[{place}]",
            )
            for place, part in enumerate(_ATTENTION)
        ),
        (r"^Transformer\.encoder_norm\.", "norm."),
        (r"^embedding\.", "enter."),
        (r"^(conv|gn)_root\.", r"encoder.root.\1."),
        (r"^(block\d+\.unit\d+)\.conv_proj\.", r"\1.downsample."),
        (r"^block", "encoder.body.block"),
        (r"^", "condition_model."),
    ),
    spare=(r"^cls$", r"^head\.", r"^pre_logits\."),
    fit=fit_positions,
)
"""What the authors began with."""


@MODELS.register(
    "transunet",
    kind="deterministic",
    paper="Chen et al., TransUNet, arXiv:2102.04306: R50-ViT-B_16",
    year=2021,
    licence="Apache-2.0",
    pretrained="ResNet-50 and ViT-B/16 together, on ImageNet-21k (R50+ViT-B_16.npz)",
)
class TransUNet(DeterministicModel):
    """TransUNet: with the authors' weights it says what their code says.

    Source: Chen et al. (2021), arXiv:2102.04306. Deviation: an image of another size than ``image_size`` resizes the
    learned positions, where theirs has to be built anew.
    """

    units = (TransformerLayer, Bottleneck)
    layouts = (FLAX,)
    fewest_cells = 2

    def __init__(self, config: TransUNetConfig, *, image_channels: int, mask_channels: int) -> None:
        super().__init__(stride=config.stride)
        self.condition_model = HybridUNet(config, image_channels=image_channels, mask_channels=mask_channels)

    def segment(self, image: Float[Tensor, "b c h w"]) -> Heads:
        """Segment."""
        return Heads(self.condition_model(image))


SMOOTH = 1e-5
"""Pixels that are added above and below the fraction of Dice."""


@SUPERVISIONS.register("transunet", what="half cross-entropy, half squared Dice over the batch, of all classes")
def entropy_and_squared_dice(
    said: Said,
    mask: Float[Tensor, "b k h w"],
    *,
    labels: Labels,
    labelled: Float[Tensor, "b 1 h w"] | None = None,
) -> Float[Tensor, " b"]:
    r"""Compute :math:`\frac12 L_{ce} + \frac12 \frac1K \sum_k 1 - \frac{2 \sum pg + s}{\sum p^2 + \sum g^2 + s}`.

    Sums run over the pixels of all images, classes include the background, s = 1e-5. Theirs are exclusive classes: a
    single structure is read as two, itself and the background, and so is each of several that may overlap; then the
    loss is the mean over structures.

    Source: the authors' released code of TransUNet.

    Args:
        said: Logits.
        mask: 0 and 1.
        labels: The label space.
        labelled: 0 where nobody labelled: such pixels do not count.

    Returns:
        The loss; cross-entropy by image, Dice of the batch for each.
    """
    assert said.logits is not None
    logits = said.logits.float()
    entropy = cross_entropy(logits, mask, exclusive=labels.exclusive, labelled=labelled)
    p, g = labels.activate(logits), mask
    if not labels.exclusive:
        p, g = torch.cat([p, 1 - p], dim=1), torch.cat([g, 1 - g], dim=1)
    if labelled is not None:
        p, g = p * labelled, g * labelled
    both, either = (p * g).sum(dim=(0, 2, 3)), (p.square() + g.square()).sum(dim=(0, 2, 3))  # (k,)
    dice = 1 - (2 * both + SMOOTH) / (either + SMOOTH)
    return 0.5 * entropy + 0.5 * dice.mean()


_LAYER = {
    "attention_norm": "norm_attention",
    "ffn_norm": "norm_mlp",
    "ffn.fc1": "mlp.0",
    "ffn.fc2": "mlp.2",
    "attn.out": "out",
}
ORIGINAL_KEYS = (
    (r"^transformer\.embeddings\.hybrid_model\.", "encoder."),
    (r"^transformer\.embeddings\.patch_embeddings\.", "enter."),
    (r"^transformer\.embeddings\.position_embeddings$", "positions"),
    *((rf"^transformer\.encoder\.layer\.(\d+)\.{old}\.", rf"layers.\1.{new}.") for old, new in _LAYER.items()),
    *(
        (rf"^transformer\.encoder\.layer\.(\d+)\.attn\.{part}\.(weight|bias)$", rf"layers.\1.qkv.\2[{place}]")
        for place, part in enumerate(_ATTENTION)
    ),
    (r"^transformer\.encoder\.encoder_norm\.", "norm."),
    (r"^decoder\.conv_more\.", "leave."),
    *((rf"^decoder\.blocks\.(\d+)\.conv{n}\.", rf"up.\1.mix.{n - 1}.") for n in (1, 2)),
    (r"^segmentation_head\.0\.", "head."),
)
"""Names of the released weights (patterns) → names within `HybridUNet`; what ends on [0], [1], [2] is put together."""
