"""Settings of nnU-Net's UNet, with which the others are compared."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from medsegdiff.config.base import NETWORKS, NetworkConfig


@NETWORKS.register("nnunet")
class NNUNetConfig(NetworkConfig):
    """nnU-Net's UNet for two dimensions; the defaults are its plan for 256×256."""

    targets: ClassVar[tuple[str, ...]] = ("x0",)
    name: str = "nnunet"
    """Entry of the registry of models."""
    levels: int = Field(default=7, ge=3)
    """Grids, each half as fine as the one before: nnU-Net halves while four pixels remain along a side."""
    channels: int = Field(default=32, ge=1)
    """Channels of the finest level; each level has twice those of the one before."""
    max_channels: int = Field(default=512, ge=1)
    """Channels of a level, at most."""
    deep_supervision: bool = True
    """Whether all levels but the two coarsest are supervised, in training alone."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels by level, finest first."""
        return tuple(min(self.max_channels, self.channels * 2**level) for level in range(self.levels))
