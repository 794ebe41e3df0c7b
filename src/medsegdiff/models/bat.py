"""BAT: a transformer that is told in each layer where a skin lesion's border bends."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from medsegdiff.config.networks.bat import BATConfig
from medsegdiff.errors import ShapeError
from medsegdiff.labels import Labels
from medsegdiff.models.base import MODELS, SUPERVISIONS, Said, size_of
from medsegdiff.models.deterministic import DeterministicModel, Heads
from medsegdiff.models.key_patches import key_patches
from medsegdiff.models.pretrained import resnet
from medsegdiff.nn.aspp import ASPP
from medsegdiff.nn.gated_transformer import QueryDecoder, QueryLayer, TokenLayer
from medsegdiff.nn.resnet import UNITS, ResNetEncoder, dilated_stage

FARTHEST = 100
"""Rows and columns of tokens that have a learned position."""


class BoundaryTransformer(nn.Module):
    """ResNet-50 whose last stage is dilated; a transformer with gates on its pixels; atrous pooling of both.

    Source: Wang et al. (2021), arXiv:2110.03864, section 2, and the released code, which has a query decoder and, in
    place of dilations 1, 3 and 6 on the tokens (at second hand), these on tokens and ResNet features together.
    """

    def __init__(self, config: BATConfig, *, image_channels: int, mask_channels: int) -> None:
        super().__init__()
        *widths, last = config.widths
        *blocks, last_blocks = config.blocks
        dim, share = config.dim, {"heads": config.heads, "hidden": config.hidden}
        self.encoder = ResNetEncoder(image_channels, widths=widths, blocks=blocks, bottleneck=True)
        self.stride = self.encoder.stride
        self.dilated = dilated_stage(self.encoder.channels[-1], last, blocks=last_blocks, dilation=2)
        deepest = 4 * last
        self.to_tokens, self.to_features = nn.Conv2d(deepest, dim, 1), nn.Conv2d(dim, deepest, 1)
        self.rows, self.columns = (nn.Parameter(torch.rand(FARTHEST, dim // 2)) for _ in range(2))
        self.layers = nn.ModuleList(TokenLayer(dim, dropout=config.dropout, **share) for _ in range(config.depth))
        self.query = QueryDecoder(dim, depth=config.query_depth, dropout=config.dropout, **share)
        self.aspp = ASPP(deepest, config.aspp_channels, bias=True)
        self.head = nn.Conv2d(config.aspp_channels, mask_channels, 1)

    def positions(self, size: tuple[int, int]) -> Float[Tensor, "1 l c"]:
        """Look up the positions of a grid of tokens, row by row: that of the column, then that of the row.

        Args:
            size: Height and width of the grid.

        Returns:
            Half of the channels from each table.

        Raises:
            ShapeError: If there are more rows or columns than positions.
        """
        height, width = size
        if max(size) > FARTHEST:
            raise ShapeError(
                f"The image is {height * self.stride}×{width * self.stride}; this network has positions for sides of "
                f"{FARTHEST * self.stride} at most. Set a smaller data.image_size."
            )
        of_row, of_column = (
            self.rows[:height, None].expand(-1, width, -1),
            self.columns[:width].expand(height, -1, -1),
        )
        return torch.cat([of_column, of_row], dim=-1).flatten(0, 1)[None]

    def forward(self, image: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b k h w"], tuple[Tensor, ...]]:
        """Segment.

        Args:
            image: Normalised image.

        Returns:
            Logits, and logits of the key patches (b 1 h/16 w/16) from each layer, the query decoder's last.
        """
        features = self.dilated(self.encoder(image)[-1])
        x, maps = self.to_tokens(features), []
        positions = self.positions(size_of(x))
        for layer in (*self.layers, self.query):
            x, gate = layer(x, positions)
            maps.append(gate)
        mixed = self.head(self.aspp(self.to_features(x) + features))
        logits = F.interpolate(mixed, size_of(image), mode="bilinear", align_corners=False)
        return logits, tuple(maps)


_RESNET = {"0": "encoder.conv1", "1": "encoder.bn1", **{str(n + 3): f"encoder.layer{n}" for n in (1, 2, 3)}}
_POOLING = {
    "1x1_1": "branches.0",
    **{f"3x3_{n}": f"branches.{n}" for n in (1, 2, 3)},
    "1x1_2": "pooled",
    "1x1_3": "mix",
}
_LAYER = {"self_attn": "attention", "linear1": "mlp.0", "linear2": "mlp.3"}
_LAYER |= {"norm1": "added_attention.norm", "norm2": "added_mlp.norm"}
_ASKING = {"self_attn": "itself", "multihead_attn": "attention", "linear1": "mlp.0", "linear2": "mlp.3"}
_ASKING |= {f"norm{n}": f"added_{of}.norm" for n, of in ((1, "itself"), (2, "attention"), (3, "mlp"))}
_ASKED = _LAYER | {"cross_attn": "attention", "BAG.convs": "gate.branches", "BAG.conv_out": "gate.mix"}
ORIGINAL_KEYS = (
    (r"^query_positions$", "query.query"),
    (r"^(row|column)_embedding$", r"\1s"),
    *((rf"^deeplab\.resnet\.resnet\.{old}\.", f"{new}.") for old, new in _RESNET.items()),
    (r"^deeplab\.resnet\.layer5\.", "dilated."),
    *((rf"^deeplab\.aspp\.conv_{old}\.", f"aspp.{new}.0.") for old, new in _POOLING.items()),
    *((rf"^deeplab\.aspp\.bn_conv_{old}\.", f"aspp.{new}.1.") for old, new in _POOLING.items()),
    (r"^deeplab\.aspp\.conv_1x1_4\.", "head."),
    (r"^convolution_mapping\.", "to_tokens."),
    (r"^trans_out_conv\.", "to_features."),
    *((rf"^transformer\.encoder\.layers\.(\d+)\.{old}\.", rf"layers.\1.{new}.") for old, new in _LAYER.items()),
    *(
        (rf"^transformer\.encoder\.layers\.(\d+)\.BAG\.{n}\.", rf"layers.\1.gate.{n // 3}.{n % 3}.")
        for n in (0, 1, 3, 4)
    ),
    (r"^transformer\.encoder\.layers\.(\d+)\.BAG\.6\.", r"layers.\1.gate.2."),
    *((rf"^transformer\.decoder\.layers\.(\d+)\.{old}\.", rf"query.layers.\1.{new}.") for old, new in _ASKING.items()),
    (r"^transformer\.decoder\.norm\.", "query.norm."),
    *((rf"^BCA\.{old}\.", f"query.{new}.") for old, new in _ASKED.items()),
)
"""Names of the released weights (patterns) → names within `BoundaryTransformer`."""


@MODELS.register(
    "bat",
    kind="deterministic",
    paper="Wang et al., Boundary-Aware Transformers for Skin Lesion Segmentation, MICCAI",
    year=2021,
    licence="none",
    pretrained="ResNet-50 on ImageNet",
)
class BAT(DeterministicModel):
    """BAT; in training it also says where key patches are, which its own loss compares (``loss.supervision: bat``).

    Source: Wang et al. (2021), arXiv:2110.03864.
    """

    units = (*UNITS, TokenLayer, QueryLayer, ASPP)
    layouts = (resnet("ResNet-50", "condition_model.encoder", spare=(r"^layer4\.",)),)

    def __init__(self, config: BATConfig, *, image_channels: int, mask_channels: int) -> None:
        super().__init__(stride=2 ** len(config.widths))
        self.condition_model = BoundaryTransformer(config, image_channels=image_channels, mask_channels=mask_channels)

    def segment(self, image: Float[Tensor, "b c h w"]) -> Heads:
        """Segment, and in training give the logits of all maps of key patches."""
        logits, maps = self.condition_model(image)
        return Heads(logits, extra=maps if self.training else ())


@SUPERVISIONS.register("bat", what="Dice of squares; of key patches mean cross-entropy × mean α(1 − p)²")
def boundary_aware(
    said: Said,
    mask: Float[Tensor, "b k h w"],
    *,
    labels: Labels,
    labelled: Float[Tensor, "b 1 h w"] | None = None,
) -> Float[Tensor, " b"]:
    r"""Compute BAT's loss, :math:`1 - \frac{2 \sum pg + \epsilon}{\sum p^2 + \sum g^2 + \epsilon}` and what maps miss.

    Of several structures the Dice is averaged, and a key patch is one of any. The targets are made on the CPU, so that
    a step waits for the device.

    Source: the code released with Wang et al. (2021), arXiv:2110.03864, whose weights in training are 1 : 1.

    Args:
        said: Logits; extra: logits of the maps.
        mask: 0 and 1.
        labels: The label space.
        labelled: 0 where nobody labelled: such pixels, and patches with such pixels, do not count.

    Returns:
        The loss of the batch, for each image.
    """
    assert said.logits is not None
    known = torch.ones_like(mask[:, :1]) if labelled is None else labelled
    structures = mask[:, labels.foreground] * known
    dice = _dice_of_squares(labels.activate(said.logits.float())[:, labels.foreground] * known, structures)
    if not said.extra:
        return dice.expand(len(mask))
    grid = size_of(said.extra[0])
    target, counted = key_patch_maps(structures, grid), 1 - F.adaptive_max_pool2d(1 - known, grid)
    missed = torch.stack([_mean_times_mean(logits.float(), target, counted) for logits in said.extra])
    return (dice + missed.mean()).expand(len(mask))


def _dice_of_squares(p: Float[Tensor, "b k h w"], g: Float[Tensor, "b k h w"]) -> Float[Tensor, ""]:
    """Compute 1 − Dice over all pixels of a batch, averaged over structures."""
    both, either = (p * g).sum(dim=(0, 2, 3)), (p**2 + g**2).sum(dim=(0, 2, 3))
    return (1 - (2 * both + 1e-5) / (either + 1e-5)).mean()


def _mean_times_mean(
    logits: Float[Tensor, "b 1 h w"], target: Float[Tensor, "b 1 h w"], counted: Float[Tensor, "b 1 h w"]
) -> Float[Tensor, ""]:
    """Compute what is called a focal loss, with α = 0.6 and γ = 2.

    The cross-entropy is averaged before it is weighed: it is no focal loss.
    """
    patches = counted.sum().clamp(min=1)
    entropy = (F.binary_cross_entropy_with_logits(logits, target, reduction="none") * counted).sum() / patches
    miss = (target - logits.sigmoid()).abs()  # 1 − p_t
    weight = torch.where(target > 0, 0.6, 0.4) * miss**2
    return entropy * (weight * counted).sum() / patches


def key_patch_maps(structures: Float[Tensor, "b n h w"], grid: tuple[int, int]) -> Float[Tensor, "b 1 gh gw"]:
    """Mark the patches at key points of any structure.

    Args:
        structures: 0 and 1.
        grid: Patches along height and width.

    Returns:
        0 and 1; zeros on the meta device, where memory is counted and nothing computed.
    """
    if structures.is_meta:
        return structures.new_zeros(len(structures), 1, *grid)
    masks = structures.detach().cpu().numpy() > 0.5
    marked = np.stack([[key_patches(mask, grid) for mask in of_image] for of_image in masks])  # (b, n, gh, gw)
    return torch.from_numpy(marked).amax(dim=1, keepdim=True).to(structures.device)
