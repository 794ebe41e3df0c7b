"""Settings of BAT, a rival for skin lesions."""

from __future__ import annotations

from pydantic import Field, model_validator

from medsegdiff.config.base import NETWORKS
from medsegdiff.config.networks.resnet import ResNetConfig


@NETWORKS.register("bat")
class BATConfig(ResNetConfig):
    """BAT; the defaults are those of the released code.

    The last stage keeps the grid of the one before, with dilated convolutions: a token is a pixel of either.
    """

    name: str = "bat"
    """Entry of the registry of models."""
    dim: int = Field(default=128, ge=2, multiple_of=2)
    """Channels of a token, a multiple of ``heads``."""
    depth: int = Field(default=6, ge=1)
    """Layers of the transformer, each with a map of key patches."""
    query_depth: int = Field(default=2, ge=1)
    """Layers through which one learned query looks at the tokens."""
    heads: int = Field(default=8, ge=1)
    """Heads of all attention."""
    hidden: int = Field(default=2048, ge=1)
    """Channels within the perceptrons of these layers."""
    aspp_channels: int = Field(default=256, ge=1)
    """Channels of each branch of the atrous pooling at the end."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of the values that each layer leaves out while training."""

    @model_validator(mode="after")
    def _heads_divide(self) -> BATConfig:
        if self.dim % self.heads:
            raise ValueError(f"dim is {self.dim}; it must be a multiple of heads, {self.heads}")
        return self
