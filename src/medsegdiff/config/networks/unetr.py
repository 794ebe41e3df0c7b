"""Settings of UNETR and Swin-UNETR, with which the others are compared."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from medsegdiff.config.base import NETWORKS, NetworkConfig


@NETWORKS.register("unetr")
class UNETRConfig(NetworkConfig):
    """UNETR for two dimensions; the defaults are the paper's, for 256×256."""

    targets: ClassVar[tuple[str, ...]] = ("x0",)
    name: str = "unetr"
    """Entry of the registry of models."""
    image_size: int = Field(default=256, ge=16, multiple_of=16)
    """Side in pixels of the images for which positions are learned; for others they are resized."""
    channels: int = Field(default=16, ge=1)
    """Channels at full resolution; twice as many on each coarser grid."""
    dim: int = Field(default=768, ge=1)
    """Width of a token, which covers 16×16 pixels."""
    mlp_dim: int = Field(default=3072, ge=1)
    """Hidden width of the perceptrons of the transformer's 12 layers."""
    heads: int = Field(default=12, ge=1)
    """Heads of their attention."""

    @model_validator(mode="after")
    def _heads_divide(self) -> UNETRConfig:
        if self.dim % self.heads:
            raise ValueError(f"dim is {self.dim}; it must be a multiple of heads, {self.heads}")
        return self


@NETWORKS.register("swinunetr")
class SwinUNETRConfig(NetworkConfig):
    """Swin-UNETR for two dimensions; the defaults are the paper's."""

    targets: ClassVar[tuple[str, ...]] = ("x0",)
    name: str = "swinunetr"
    """Entry of the registry of models."""
    channels: int = Field(default=48, ge=12, multiple_of=12)
    """Channels of a token of 2×2 pixels; twice as many after each of the four merges."""
    depths: tuple[int, int, int, int] = (2, 2, 2, 2)
    """Layers by stage; every other one shifts its windows."""
    heads: tuple[int, int, int, int] = (3, 6, 12, 24)
    """Heads of attention by stage."""
    window: int = Field(default=7, ge=2)
    """Side in tokens of the windows within which attention is paid."""

    @model_validator(mode="after")
    def _heads_divide(self) -> SwinUNETRConfig:
        widths = [self.channels * 2**stage for stage in range(4)]
        if any(depth < 1 for depth in self.depths) or any(heads < 1 for heads in self.heads):
            raise ValueError("depths and heads must be 1 or more")
        if any(width % heads for width, heads in zip(widths, self.heads, strict=True)):
            raise ValueError(f"heads must divide the channels of the stages, {widths}")
        return self
