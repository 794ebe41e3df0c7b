"""Settings of TransBTS, a transformer between the halves of a UNet."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from medsegdiff.config.base import NETWORKS, NetworkConfig


@NETWORKS.register("transbts")
class TransBTSConfig(NetworkConfig):
    """TransBTS for slices; the defaults are those of the released code."""

    targets: ClassVar[tuple[str, ...]] = ("x0",)
    name: str = "transbts"
    """Entry of the registry of models."""
    channels: int = Field(default=16, ge=1)
    """Channels of the finest of four levels; each level has twice those of the one before."""
    transformer_dim: int = Field(default=512, ge=1)
    """Width of a token."""
    transformer_depth: int = Field(default=4, ge=1)
    """Layers."""
    transformer_heads: int = Field(default=8, ge=1)
    """Heads of their attention."""
    transformer_ratio: int = Field(default=8, ge=1)
    """Hidden width of their perceptrons over that of a token."""
    table_size: int = Field(default=256, ge=8, multiple_of=8)
    """Side in pixels of the images for which positions are learned; for others they are interpolated."""

    @model_validator(mode="after")
    def _heads_divide(self) -> TransBTSConfig:
        if self.transformer_dim % self.transformer_heads:
            raise ValueError(
                f"transformer_dim is {self.transformer_dim}; it must be a multiple of transformer_heads, "
                f"{self.transformer_heads}"
            )
        return self
