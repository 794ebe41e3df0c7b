"""Settings of SwinBTS, a UNet of shifted windows."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from medsegdiff.config.base import NETWORKS, NetworkConfig


@NETWORKS.register("swinbts")
class SwinBTSConfig(NetworkConfig):
    """SwinBTS for slices; the defaults are those of the released code."""

    targets: ClassVar[tuple[str, ...]] = ("x0",)
    name: str = "swinbts"
    """Entry of the registry of models."""
    patch: int = Field(default=4, ge=1)
    """Side in pixels of the cells that become tokens of the first stage."""
    channels: int = Field(default=96, ge=1)
    """Width of these tokens; each stage, and the bottleneck, has twice that of the one before and half the grid."""
    heads: tuple[int, ...] = Field(default=(3, 6, 12), min_length=1)
    """Heads of attention, by stage."""
    window: int = Field(default=7, ge=2)
    """Side of the windows, in tokens; every other block shifts them by half of it."""
    mixing_channels: int = Field(default=512, ge=8, multiple_of=8)
    """Width of queries and keys in the bottleneck."""
    exact: bool = False
    """Whether windows that a small grid makes smaller take biases of other offsets, the first rows and columns of the
    full window's, as in the released code."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths of tokens by stage, and last that of the bottleneck."""
        return tuple(self.channels * 2**stage for stage in range(len(self.heads) + 1))

    @model_validator(mode="after")
    def _heads_divide(self) -> SwinBTSConfig:
        for width, heads in zip(self.widths, (*self.heads, 8), strict=True):
            if width % heads:
                raise ValueError(
                    f"channels is {self.channels}, the widths are {self.widths}; each must be a multiple of its heads, "
                    f"{self.heads} and 8 in the bottleneck"
                )
        return self
