"""Settings of ResUNet, a rival for the optic disc and cup."""

from __future__ import annotations

from pydantic import Field

from medsegdiff.config.base import NETWORKS
from medsegdiff.config.networks.resnet import ResNetConfig


@NETWORKS.register("resunet")
class ResUNetConfig(ResNetConfig):
    """ResUNet; the defaults are ResNet-34 and the decoder of its third-party reproductions."""

    name: str = "resunet"
    """Entry of the registry of models."""
    decoder_channels: int = Field(default=256, ge=2, multiple_of=2)
    """Channels of each step of the decoder; half of them come from below, half from the encoder."""
