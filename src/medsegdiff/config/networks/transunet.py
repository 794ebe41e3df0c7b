"""Settings of TransUNet, with which the others are compared."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from medsegdiff.config.base import NETWORKS, PretrainedConfig


@NETWORKS.register("transunet")
class TransUNetConfig(PretrainedConfig):
    """TransUNet; the defaults are R50-ViT-B_16's, as the authors released it."""

    targets: ClassVar[tuple[str, ...]] = ("x0",)
    name: str = "transunet"
    """Entry of the registry of models."""
    image_size: int = Field(default=256, ge=8)
    """Side in pixels of the images for which positions are learned; for others they are resized. 224 in the paper."""
    channels: int = Field(default=64, ge=1)
    """Channels of the ResNet's stem; its bottlenecks are as wide, and twice as wide in each further stage."""
    blocks: tuple[int, ...] = Field(default=(3, 4, 9), min_length=2)
    """Bottlenecks of the ResNet by stage; with n stages a token covers 2^(n + 1) pixels."""
    dim: int = Field(default=768, ge=1)
    """Width of a token."""
    depth: int = Field(default=12, ge=1)
    """Layers of the transformer."""
    heads: int = Field(default=12, ge=1)
    """Heads of their attention."""
    ratio: int = Field(default=4, ge=1)
    """Hidden width of their perceptrons over that of a token."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share that is dropped of tokens and within the perceptrons, while training."""
    decoder_widths: tuple[int, ...] = Field(default=(512, 256, 128, 64, 16), min_length=4)
    """Channels of the decoder, coarsest first: on the tokens' grid, then after each doubling."""

    @property
    def stride(self) -> int:
        """Pixels along the side of a token."""
        return int(2 ** (len(self.blocks) + 1))

    @model_validator(mode="after")
    def _parts_fit(self) -> TransUNetConfig:
        if self.dim % self.heads:
            raise ValueError(f"dim is {self.dim}; it must be a multiple of heads, {self.heads}")
        if len(self.decoder_widths) != len(self.blocks) + 2:
            raise ValueError(
                f"decoder_widths has {len(self.decoder_widths)} widths; {len(self.blocks)} stages of blocks need "
                f"{len(self.blocks) + 2}: one on the tokens' grid, and one after each doubling"
            )
        if self.image_size % self.stride:
            raise ValueError(f"image_size is {self.image_size}; it must be a multiple of {self.stride}")
        return self
