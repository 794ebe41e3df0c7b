"""UNETR and Swin-UNETR for pictures and slices: MONAI's networks, in which the authors published them."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from monai.networks.blocks.transformerblock import TransformerBlock
from monai.networks.nets.swin_unetr import SwinTransformerBlock, SwinUNETR
from monai.networks.nets.unetr import UNETR
from torch import Tensor, nn

from medsegdiff.config.networks.unetr import SwinUNETRConfig, UNETRConfig
from medsegdiff.models.base import MODELS
from medsegdiff.models.deterministic import DeterministicModel, Heads
from medsegdiff.nn.transformer import positions_at

PATCH = 16
"""Side of a token of UNETR, in pixels."""
SEEN = (3, 6, 9)
"""Layers of its transformer, counted from 0, whose tokens its decoder sees beside the last."""


def build_unetr(config: UNETRConfig, *, image_channels: int, mask_channels: int) -> nn.Module:
    """Build MONAI's UNETR without what it has for cross-attention, which nothing calls.

    These are norms, and in MONAI 1.5 a whole attention in each layer (28 M parameters).
    """
    network: Any = UNETR(
        image_channels,
        mask_channels,
        img_size=config.image_size,
        feature_size=config.channels,
        hidden_size=config.dim,
        mlp_dim=config.mlp_dim,
        num_heads=config.heads,
        spatial_dims=2,
    )
    for block in network.vit.blocks:
        block.norm_cross_attn, block.cross_attn = nn.Identity(), nn.Identity()
    built: nn.Module = network
    return built


def segmented(unetr: Any, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
    """Compute what UNETR says of an image, which may have another size than its positions were learned for.

    Source: Hatamizadeh et al. (2022), arXiv:2103.10504, section 3.1 and figure 2.

    Args:
        unetr: MONAI's network.
        image: Normalised image; height and width are multiples of 16.

    Returns:
        Logits.
    """
    embedding = unetr.vit.patch_embedding
    grid = embedding.patch_embeddings(image)  # (b, dim, h, w)
    size = (grid.shape[-2], grid.shape[-1])
    tokens = embedding.dropout(grid.flatten(2).transpose(1, 2) + positions_at(embedding.position_embeddings, size))
    seen = []
    for number, block in enumerate(unetr.vit.blocks):
        tokens = block(tokens)
        if number in SEEN:
            seen.append(tokens)
    fine, middle, coarse, last = (of.transpose(1, 2).unflatten(2, size) for of in (*seen, unetr.vit.norm(tokens)))
    x = unetr.decoder5(last, unetr.encoder4(coarse))  # (b, channels, h, w), finer with each
    x = unetr.decoder4(x, unetr.encoder3(middle))
    x = unetr.decoder3(x, unetr.encoder2(fine))
    logits: Tensor = unetr.out(unetr.decoder2(x, unetr.encoder1(image)))
    return logits


@MODELS.register(
    "unetr", kind="deterministic", paper="Hatamizadeh et al., UNETR, WACV: in 2-D", year=2022, licence="Apache-2.0"
)
class UNETRModel(DeterministicModel):
    """UNETR; the second term of equation 3 with α = β = 1 stands for its Dice and cross-entropy.

    Source: Hatamizadeh et al. (2022), arXiv:2103.10504. Deviation: an image of another size than ``image_size``
    resizes the learned positions, where theirs has to be built anew; in 2-D it's a slice, not a volume, that is seen.
    """

    units = (TransformerBlock,)
    fewest_cells = 2

    def __init__(self, config: UNETRConfig, *, image_channels: int, mask_channels: int) -> None:
        super().__init__(stride=PATCH)
        self.condition_model = build_unetr(config, image_channels=image_channels, mask_channels=mask_channels)

    def segment(self, image: Float[Tensor, "b c h w"]) -> Heads:
        """Segment."""
        return Heads(segmented(self.condition_model, image))


@MODELS.register(
    "swinunetr",
    kind="deterministic",
    paper="Hatamizadeh et al., Swin UNETR, BrainLes: in 2-D",
    year=2022,
    licence="Apache-2.0",
)
class SwinUNETRModel(DeterministicModel):
    """Swin-UNETR; the second term of equation 3 with α = β = 1 stands for its Dice.

    Its self-supervised weights are of volumes of CT, and fit no slices.

    Source: Hatamizadeh et al. (2022), arXiv:2201.01266. Deviation: in 2-D it's a slice, not a volume, that is seen.
    """

    units = (SwinTransformerBlock,)
    fewest_cells = 2

    def __init__(self, config: SwinUNETRConfig, *, image_channels: int, mask_channels: int) -> None:
        super().__init__(stride=32)
        with torch.device("cpu"):  # MONAI reads numbers of tensors while it builds, which the meta device has not
            network = SwinUNETR(
                image_channels,
                mask_channels,
                depths=config.depths,
                num_heads=config.heads,
                window_size=config.window,
                feature_size=config.channels,
                spatial_dims=2,
            )
        self.condition_model = network.to(torch.get_default_device())

    def segment(self, image: Float[Tensor, "b c h w"]) -> Heads:
        """Segment."""
        return Heads(self.condition_model(image))
