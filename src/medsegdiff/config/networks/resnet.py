"""What networks with a ResNet for an encoder have in common in their settings."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from medsegdiff.config.base import PretrainedConfig


class ResNetConfig(PretrainedConfig):
    """Base of their settings; the defaults are those of ResNet-34 and ResNet-50."""

    targets: ClassVar[tuple[str, ...]] = ("x0",)
    widths: tuple[int, ...] = Field(default=(64, 128, 256, 512), min_length=2, max_length=4)
    """Channels of the encoder's stages; the grid becomes half as fine from each to the next, unless the network says
    otherwise."""
    blocks: tuple[int, ...] = Field(default=(3, 4, 6, 3), min_length=2, max_length=4)
    """Residual blocks of each stage."""

    @model_validator(mode="after")
    def _stage_by_stage(self) -> ResNetConfig:
        if len(self.widths) != len(self.blocks):
            raise ValueError(
                f"widths has {len(self.widths)} stages, blocks {len(self.blocks)}: give both a number for each stage"
            )
        return self
