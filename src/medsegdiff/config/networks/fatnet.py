"""Settings of FAT-Net, a rival for skin lesions."""

from __future__ import annotations

from pydantic import Field, model_validator

from medsegdiff.config.base import NETWORKS
from medsegdiff.config.networks.resnet import ResNetConfig


@NETWORKS.register("fatnet")
class FATNetConfig(ResNetConfig):
    """FAT-Net; the defaults are its ResNet-34 and its DeiT-tiny.

    A patch of the transformer is a pixel of the last stage.
    """

    name: str = "fatnet"
    """Entry of the registry of models."""
    dim: int = Field(default=192, ge=1)
    """Channels of the transformer, a multiple of ``heads``."""
    depth: int = Field(default=12, ge=1)
    """Layers of the transformer."""
    heads: int = Field(default=3, ge=1)
    """Heads of its attention."""

    @model_validator(mode="after")
    def _heads_divide(self) -> FATNetConfig:
        if self.dim % self.heads:
            raise ValueError(f"dim is {self.dim}; it must be a multiple of heads, {self.heads}")
        return self
