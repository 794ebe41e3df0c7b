"""Settings of BEAL."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from medsegdiff.config.base import NETWORKS, PretrainedConfig


@NETWORKS.register("beal")
class BEALConfig(PretrainedConfig):
    """BEAL's segmentation network; the defaults are the published ones."""

    targets: ClassVar[tuple[str, ...]] = ("x0",)
    name: str = "beal"
    """Entry of the registry of models."""
    widths: tuple[int, ...] = (32, 16, 24, 32, 64, 96, 160, 320)
    """Channels of MobileNetV2's stem and of its stages; there may be fewer than seven."""
    blocks: tuple[int, ...] = (1, 2, 3, 4, 3, 3, 1)
    """Inverted residuals of each stage."""
    channels: int = Field(default=256, ge=1)
    """Of each branch of the pyramid pooling, and of the boundary's head."""
    low_channels: int = Field(default=48, ge=1)
    """To which the features at a fourth of the resolution are brought."""
    discriminator_channels: int = Field(default=64, ge=1)
    """Of the first convolution of each discriminator, which ``train.unlabelled`` asks for."""

    @model_validator(mode="after")
    def _stages(self) -> BEALConfig:
        stages = len(self.blocks)
        if len(self.widths) != stages + 1 or not 3 <= stages <= 7:
            raise ValueError(
                f"there are {len(self.widths)} widths and {stages} numbers of blocks; MobileNetV2 has a stem and 3 to "
                "7 stages: give the blocks of each stage, and the width of the stem and of each stage"
            )
        if min(*self.widths, *self.blocks) < 1:
            raise ValueError(f"widths {self.widths} and blocks {self.blocks} must be 1 or more each")
        return self
