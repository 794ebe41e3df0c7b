"""TransBTS: a UNet of residual blocks whose coarsest features a transformer relates; of slices, or of volumes."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from monai.networks.layers.factories import Conv, Dropout, Norm
from torch import Tensor, nn
from torch.nn import functional as F

from medsegdiff.config.networks.transbts import TransBTSConfig
from medsegdiff.labels import Labels
from medsegdiff.models.base import MODELS, SUPERVISIONS, Said
from medsegdiff.models.deterministic import DeterministicModel, Heads
from medsegdiff.nn.blocks import group_norm
from medsegdiff.nn.losses import overlap
from medsegdiff.nn.tokens import Branch, SelfAttention, perceptron

BLOCKS = (1, 2, 2, 4)
"""Residual blocks of the encoder, by level."""
DROPOUT = 0.1
"""Of tokens, attention and projections."""
FIRST_DROPOUT = 0.2
"""Of the first features, by channel."""


class EncoderBlock(nn.Module):
    """Twice group norm, ReLU and a convolution, and a way around them."""

    def __init__(self, channels: int, *, spatial_dims: int) -> None:
        super().__init__()
        convolution = Conv["conv", spatial_dims]
        self.layers = nn.Sequential()
        for _ in range(2):
            self.layers.extend(
                (group_norm(channels), nn.ReLU(), convolution(channels, channels, kernel_size=3, padding=1))
            )

    def forward(self, x: Float[Tensor, "b c *s"]) -> Float[Tensor, "b c *s"]:
        """Apply the block."""
        return x + self.layers(x)


class NormedConvolutions(nn.Sequential):
    """Twice a convolution, batch norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, spatial_dims: int) -> None:
        super().__init__()
        convolution, norm = Conv["conv", spatial_dims], Norm["batch", spatial_dims]
        for width in (in_channels, out_channels):
            self.extend((convolution(width, out_channels, kernel_size=3, padding=1), norm(out_channels), nn.ReLU()))


class DecoderBlock(NormedConvolutions):
    """The same with a way around it; nothing follows the sum."""

    def __init__(self, channels: int, *, spatial_dims: int) -> None:
        super().__init__(channels, channels, spatial_dims=spatial_dims)

    def forward(self, x: Float[Tensor, "b c *s"]) -> Float[Tensor, "b c *s"]:
        """Apply the block."""
        added = x
        for layer in self:
            added = layer(added)
        return x + added


def transformer(config: TransBTSConfig) -> nn.Sequential:
    """Make layers of attention and of a perceptron; what attention gives drops out a second time."""
    dim, layers = config.transformer_dim, nn.Sequential()
    for _ in range(config.transformer_depth):
        attention = SelfAttention(dim, heads=config.transformer_heads, dropout=DROPOUT)
        layers.append(Branch(dim, attention, drop=nn.Dropout(DROPOUT)))
        by_itself = perceptron(dim, ratio=config.transformer_ratio, dropout=DROPOUT)
        layers.append(Branch(dim, by_itself, drop=nn.Dropout(DROPOUT)))
    return layers


class Up(nn.Module):
    """Doubles the size and halves the width; the encoder's features join, first in the concatenation."""

    def __init__(self, channels: int, *, spatial_dims: int) -> None:
        super().__init__()
        convolution, half = Conv["conv", spatial_dims], channels // 2
        self.narrow = convolution(channels, half, kernel_size=1)
        self.enlarge = Conv["convtrans", spatial_dims](half, half, kernel_size=2, stride=2)
        self.join = convolution(channels, half, kernel_size=1)

    def forward(self, x: Float[Tensor, "b c *s"], skip: Float[Tensor, "b d *t"]) -> Float[Tensor, "b d *t"]:
        """Give features like those of the encoder."""
        out: Tensor = self.join(torch.cat([skip, self.enlarge(self.narrow(x))], dim=1))
        return out


class TransBTSNetwork(nn.Module):
    """TransBTS for images of two or three dimensions; the paper's is for three, and 128³ voxels.

    Deviations from the released code: logits leave it, its softmax being part of the loss; the first dropout rests
    outside training, where theirs never does; a norm whose output it drops, and a linear layer that it never calls,
    are not built; the table of positions fits other sizes than 128³.

    Source: Wang W. et al. (2021), TransBTS, arXiv:2103.04430, section 2, and the released code.
    """

    def __init__(self, image_channels: int, classes: int, config: TransBTSConfig, *, spatial_dims: int = 2) -> None:
        super().__init__()
        convolution, dims = Conv["conv", spatial_dims], {"spatial_dims": spatial_dims}
        widths = [config.channels * 2**level for level in range(len(BLOCKS))]
        coarsest, dim, self.side = widths[-1], config.transformer_dim, config.table_size // 2 ** (len(BLOCKS) - 1)
        self.stem = convolution(image_channels, widths[0], kernel_size=3, padding=1)
        self.dropout = Dropout["dropout", spatial_dims](FIRST_DROPOUT)
        self.levels = nn.ModuleList(
            nn.Sequential(*(EncoderBlock(width, **dims) for _ in range(number)))
            for width, number in zip(widths, BLOCKS, strict=True)
        )
        self.down = nn.ModuleList(convolution(a, b, kernel_size=3, stride=2, padding=1) for a, b in pairwise(widths))
        self.enter = nn.Sequential(
            Norm["batch", spatial_dims](coarsest), nn.ReLU(), convolution(coarsest, dim, kernel_size=3, padding=1)
        )
        self.positions = nn.Parameter(torch.zeros(1, self.side**spatial_dims, dim))
        self.transformer = transformer(config)
        self.leave = nn.Sequential(NormedConvolutions(dim, coarsest, **dims), DecoderBlock(coarsest, **dims))
        self.up = nn.ModuleList(Up(width, **dims) for width in reversed(widths[1:]))
        self.refine = nn.ModuleList(DecoderBlock(width, **dims) for width in reversed(widths[:-1]))
        self.head = convolution(widths[0], classes, kernel_size=1)

    def forward(self, image: Float[Tensor, "b c *s"]) -> Float[Tensor, "b k *s"]:
        """Segment.

        Args:
            image: Sides are multiples of 8.

        Returns:
            Logits.
        """
        *skips, x = self._encode(image)
        x = self.enter(x)
        tokens = F.dropout(x.flatten(2).transpose(1, 2) + self._table(x), DROPOUT, self.training)  # (b, l, dim)
        x = self.leave(self.transformer(tokens).transpose(1, 2).reshape(x.shape))
        for up, refine in zip(self.up, self.refine, strict=True):
            x = refine(up(x, skips.pop()))
        logits: Tensor = self.head(x)
        return logits

    def _encode(self, image: Float[Tensor, "b c *s"]) -> list[Tensor]:
        """Give the features of each level, finest first."""
        features = [self.levels[0](self.dropout(self.stem(image)))]
        for down, level in zip(self.down, self.levels[1:], strict=True):
            features.append(level(down(features[-1])))
        return features

    def _table(self, like: Float[Tensor, "b dim *s"]) -> Float[Tensor, "1 l dim"]:
        """Read the positions, or interpolate them for a grid of another size."""
        sides = like.shape[2:]
        if all(side == self.side for side in sides):
            return self.positions
        grid = self.positions.transpose(1, 2).unflatten(2, (self.side,) * len(sides))
        mode = {2: "bilinear", 3: "trilinear"}[len(sides)]
        return F.interpolate(grid.float(), sides, mode=mode).flatten(2).transpose(1, 2)


_BLOCK = (("bn1", "0"), ("conv1", "2"), ("bn2", "3"), ("conv2", "5"))
_CONVOLUTIONS = (("conv1", "0"), ("bn1", "1"), ("conv2", "3"), ("bn2", "4"))
_UP = (("conv1", "narrow"), ("conv2", "enlarge"), ("conv3", "join"))
ORIGINAL_KEYS = (
    (r"^Unet\.InitConv\.conv\.", "stem."),
    *((rf"^Unet\.EnDown{level + 1}\.conv\.", f"down.{level}.") for level in range(3)),
    *((rf"^Unet\.EnBlock1\.{a}\.", f"levels.0.0.layers.{b}.") for a, b in _BLOCK),
    *(
        (rf"^Unet\.EnBlock{level + 1}_{block + 1}\.{a}\.", f"levels.{level}.{block}.layers.{b}.")
        for level in (1, 2, 3)
        for block in range(BLOCKS[level])
        for a, b in _BLOCK
    ),
    (r"^bn\.", "enter.0."),
    (r"^conv_x\.", "enter.2."),
    (r"^position_encoding\.position_embeddings$", "positions"),
    (r"^transformer\.net\.(\d+)\.fn\.norm\.", r"transformer.\1.norm."),
    (r"^transformer\.net\.(\d+)\.fn\.fn\.qkv\.", r"transformer.\1.layer.qkv."),
    (r"^transformer\.net\.(\d+)\.fn\.fn\.proj\.", r"transformer.\1.layer.out."),
    (r"^transformer\.net\.(\d+)\.fn\.fn\.net\.", r"transformer.\1.layer."),
    *((rf"^Enblock8_{block + 1}\.{a}\.", f"leave.{block}.{b}.") for block in (0, 1) for a, b in _CONVOLUTIONS),
    *((rf"^DeUp{4 - step}\.{a}\.", f"up.{step}.{b}.") for step in range(3) for a, b in _UP),
    *((rf"^DeBlock{4 - step}\.{a}\.", f"refine.{step}.{b}.") for step in range(3) for a, b in _CONVOLUTIONS),
    (r"^endconv\.", "head."),
)
"""Names of the released weights (patterns) → names within `TransBTSNetwork`."""
ORIGINAL_UNUSED = (r"^linear_encoding\.", r"^pre_head_ln\.")
"""What a released checkpoint holds beside them."""


@MODELS.register(
    "transbts",
    kind="deterministic",
    paper="Wang W. et al., TransBTS, MICCAI: in 2-D",
    year=2021,
    licence="Apache-2.0",
)
class TransBTS(DeterministicModel):
    """TransBTS for slices, every operation on volumes being replaced by its twin on images: our reading of the tables.

    Source: Wang W. et al. (2021), arXiv:2103.04430.
    """

    units = (EncoderBlock, NormedConvolutions, Branch)

    def __init__(self, config: TransBTSConfig, *, image_channels: int, mask_channels: int) -> None:
        super().__init__(stride=2 ** (len(BLOCKS) - 1))
        self.condition_model = TransBTSNetwork(image_channels, mask_channels, config)

    def segment(self, image: Float[Tensor, "b c h w"]) -> Heads:
        """Segment."""
        return Heads(self.condition_model(image))


@SUPERVISIONS.register("transbts", what="1 − 2 Σpg / (Σp + Σg + 1e-5) of a batch, summed over structures")
def wang_dice(
    said: Said,
    mask: Float[Tensor, "b k h w"],
    *,
    labels: Labels,
    labelled: Float[Tensor, "b 1 h w"] | None = None,
) -> Float[Tensor, " b"]:
    r"""Compute TransBTS's loss, :math:`\sum_k 1 - 2 \frac{\sum p_k g_k}{\sum p_k + \sum g_k + 10^{-5}}`.

    Sums run over all images of a batch; the background of exclusive classes is no structure.

    Source: the code released with Wang W. et al. (2021).

    Args:
        said: Logits.
        mask: 0 and 1.
        labels: The label space.
        labelled: 0 where nobody labelled: what is predicted there does not count.

    Returns:
        The loss of the batch, for each image.
    """
    assert said.logits is not None
    probability = labels.activate(said.logits.float())[:, labels.foreground]
    both, sizes = overlap(probability, mask[:, labels.foreground], labelled=labelled, batch=True)  # (structures,) each
    return (1 - 2 * both / (sizes + 1e-5)).sum().expand(len(mask))
