"""SwinBTS: a UNet of shifted windows whose coarsest features a convolution mixes; of slices, or of volumes."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from medsegdiff.config.networks.swinbts import SwinBTSConfig
from medsegdiff.models.base import MODELS
from medsegdiff.models.deterministic import DeterministicModel, Heads
from medsegdiff.nn.token_grid import Down, Expand, Separable, Up
from medsegdiff.nn.tokens import Branch, perceptron
from medsegdiff.nn.windows import window_blocks

DEPTH = 2
"""Blocks of each stage, and of the bottleneck."""
DROP_PATH = 0.1
"""Of the last block, those of the bottleneck being counted; it rises from 0 evenly."""
MIXING_HEADS, MIXING_GROUP, MIXING_KERNEL = 8, 8, 7
"""Heads of the bottleneck, channels that its convolution mixes with each other, and the side of that."""


class Mixing(nn.Module):
    r"""Weighs values by channel, with weights that a large convolution of :math:`q \cdot k` gives.

    :math:`\mathrm{softmax}_c(W * (q \cdot k)) \cdot v` at each place, over the channels c of each head; there is no
    attention of places to each other.

    Source: SwinBTS, ETrans, as in the released code.
    """

    def __init__(self, dim: int, *, channels: int, spatial_dims: int) -> None:
        super().__init__()
        self.widths, convolution = (channels, channels, dim), Conv["conv", spatial_dims]
        self.qkv = convolution(dim, sum(self.widths), kernel_size=1, bias=False)
        kernel, groups = MIXING_KERNEL, channels // MIXING_GROUP
        self.weigh = nn.Sequential(
            convolution(channels, channels, kernel_size=kernel, padding=kernel // 2, groups=groups),
            nn.GELU(),
            convolution(channels, dim, kernel_size=1),
        )
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "b *s dim"]) -> Float[Tensor, "b *s dim"]:
        """Mix."""
        q, k, v = self.qkv(x.movedim(-1, 1)).split(self.widths, dim=1)
        weights = self.weigh(q * k).unflatten(1, (MIXING_HEADS, -1)).softmax(dim=2).flatten(1, 2)
        out: Tensor = self.out((weights * v).movedim(1, -1))
        return out


def bottleneck(config: SwinBTSConfig, *, spatial_dims: int) -> nn.Sequential:
    """Make the blocks of the coarsest grid: a branch that mixes and one with a perceptron each."""
    dim, blocks = config.widths[-1], nn.Sequential()
    for _ in range(DEPTH):
        layers = (
            Mixing(dim, channels=config.mixing_channels, spatial_dims=spatial_dims),
            perceptron(dim, ratio=4),
        )
        blocks.append(nn.Sequential(*(Branch(dim, layer) for layer in layers)))
    return blocks


def stage(config: SwinBTSConfig, number: int, *, spatial_dims: int) -> nn.Sequential:
    """Make the blocks of a stage, alike in encoder and decoder."""
    rising = np.linspace(0, DROP_PATH, DEPTH * (len(config.heads) + 1)).tolist()
    return window_blocks(
        config.widths[number],
        heads=config.heads[number],
        window=(config.window,) * spatial_dims,
        drops=rising[DEPTH * number : DEPTH * (number + 1)],
        exact=config.exact,
    )


class SwinBTSNetwork(nn.Module):
    """SwinBTS for images of two or three dimensions; the paper's is for three, and 128³ voxels.

    Deviations from the released code: an image may have any multiple of the stride, theirs has the size that the
    network is built for; biases within windows that the grid makes smaller (``exact``). Unverified: blocks of the
    decoder are skipped as often as those of the encoder beside them.

    Source: Jiang et al. (2022), SwinBTS, doi:10.3390/brainsci12060797, and the released code.
    """

    def __init__(self, image_channels: int, classes: int, config: SwinBTSConfig, *, spatial_dims: int = 2) -> None:
        super().__init__()
        convolution, patch, widths = Conv["conv", spatial_dims], config.patch, config.widths
        stages = range(len(config.heads))
        self.embed = convolution(image_channels, widths[0], kernel_size=patch, stride=patch)
        self.embed_norm = nn.LayerNorm(widths[0])
        self.encoder = nn.ModuleList(stage(config, number, spatial_dims=spatial_dims) for number in stages)
        self.down = nn.ModuleList(Down(width, spatial_dims=spatial_dims) for width in widths[:-1])
        self.bottleneck = bottleneck(config, spatial_dims=spatial_dims)
        self.bottleneck_norm = nn.LayerNorm(widths[-1])
        self.up = nn.ModuleList(Up(width, spatial_dims=spatial_dims) for width in widths[:0:-1])
        self.join = nn.ModuleList(nn.Linear(2 * width, width, bias=False) for width in widths[-2::-1])
        self.decoder = nn.ModuleList(stage(config, number, spatial_dims=spatial_dims) for number in reversed(stages))
        self.decoder_norm = nn.LayerNorm(widths[0])
        self.expand = Expand(widths[0], patch=patch, spatial_dims=spatial_dims)
        self.head = convolution(widths[0], classes, kernel_size=1, bias=False)

    def forward(self, image: Float[Tensor, "b c *s"]) -> Float[Tensor, "b k *s"]:
        """Segment.

        Args:
            image: Sides are multiples of patch · 2^stages.

        Returns:
            Logits.
        """
        x, skips = self.embed_norm(self.embed(image).movedim(1, -1)), list[Tensor]()  # (b, *s, c) from here on
        for blocks, down in zip(self.encoder, self.down, strict=True):
            skips.append(x)  # what enters a stage, not what leaves it
            x = down(blocks(x))
        x = self.bottleneck_norm(x + self.bottleneck(x))
        for up, join, blocks in zip(self.up, self.join, self.decoder, strict=True):
            x = blocks(join(torch.cat([up(x), skips.pop()], dim=-1)))
        logits: Tensor = self.head(self.expand(self.decoder_norm(x)).movedim(-1, 1))
        return logits


_BLOCK = (
    (r"norm1\.", "0.norm."),
    (r"attn\.relative_position_bias_table$", "0.layer.table"),
    (r"attn\.qkv\.", "0.layer.qkv."),
    (r"attn\.proj\.", "0.layer.out."),
    (r"norm2\.", "1.norm."),
    (r"mlp\.fc1\.", "1.layer.0."),
    (r"mlp\.fc2\.", "1.layer.3."),
)
_MIXING = (
    (r"norm1\.", "0.norm."),
    (r"attn\.pre_proj\.", "0.layer.qkv."),
    (r"attn\.attn\.", "0.layer.weigh."),
    (r"attn\.post_proj\.", "0.layer.out."),
    (r"norm2\.", "1.norm."),
    (r"mlp\.net\.", "1.layer."),
)
_DOWN = (("dwconv", "local"), ("conv", "merge"), ("norm", "norm"))
_UP = (("norm_layer", "norm"), ("dwconv", "local"), ("conv", "part"))
ORIGINAL_KEYS = (
    (r"^patch_embed3D\.proj\.", "embed."),
    (r"^patch_embed3D\.norm\.", "embed_norm."),
    *((rf"^layers\.(\d)\.blocks\.(\d)\.{a}", rf"encoder.\1.\2.{b}") for a, b in _BLOCK),
    *((rf"^layers\.(\d)\.downsample\.{a}\.", rf"down.\1.{b}.") for a, b in _DOWN),
    *((rf"^layers\.3\.elsa\.net\.(\d)\.{a}", rf"bottleneck.\1.{b}") for a, b in _MIXING),
    (r"^norm\.", "bottleneck_norm."),
    *((rf"^layers_up\.(\d)\.(?:upsample\.)?{a}\.", rf"up.\1.{b}.") for a, b in _UP),
    *(
        (rf"^layers_up\.{step + 1}\.blocks\.(\d)\.{a}", rf"decoder.{step}.\1.{b}")
        for step in range(3)
        for a, b in _BLOCK
    ),
    *((rf"^concat_back_dim\.{step + 1}\.", f"join.{step}.") for step in range(3)),
    (r"^norm_up\.", "decoder_norm."),
    (r"^up\.expand\.", "expand.linear."),
    (r"^up\.norm\.", "expand.norm."),
    (r"^output\.", "head."),
)
"""Names of the released weights (patterns) → names within `SwinBTSNetwork`."""
ORIGINAL_UNUSED = (r".*\.relative_position_index$",)
"""What a released checkpoint holds beside them: numbers that are computed here."""


@MODELS.register(
    "swinbts",
    kind="deterministic",
    paper="Jiang et al., SwinBTS, Brain Sciences: in 2-D",
    year=2022,
    licence="none",
    pretrained="Swin-T (as a reader of the paper has it)",
)
class SwinBTS(DeterministicModel):
    """SwinBTS for slices, every operation on volumes being replaced by its twin on images: our reading of the tables.

    Source: Jiang et al. (2022), doi:10.3390/brainsci12060797.
    """

    units = (Branch, Separable)

    def __init__(self, config: SwinBTSConfig, *, image_channels: int, mask_channels: int) -> None:
        super().__init__(stride=config.patch * 2 ** len(config.heads))
        self.condition_model = SwinBTSNetwork(image_channels, mask_channels, config)

    def segment(self, image: Float[Tensor, "b c h w"]) -> Heads:
        """Segment."""
        return Heads(self.condition_model(image))
