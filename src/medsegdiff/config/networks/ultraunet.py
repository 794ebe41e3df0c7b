"""Settings of UltraUNet, with which the others are compared."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from medsegdiff.config.base import NETWORKS, NetworkConfig


@NETWORKS.register("ultraunet")
class UltraUNetConfig(NetworkConfig):
    """UltraUNet as read here: the classic U-Net."""

    targets: ClassVar[tuple[str, ...]] = ("x0",)
    name: str = "ultraunet"
    """Entry of the registry of models."""
    widths: tuple[int, ...] = Field(default=(64, 128, 256, 512, 1024), min_length=2)
    """Channels by level, finest first; each level halves the resolution."""
