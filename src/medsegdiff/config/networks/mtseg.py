"""Settings of MTSeg, which draws the thyroid beside its nodules."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from medsegdiff.config.base import NETWORKS, NetworkConfig


@NETWORKS.register("mtseg")
class MTSegConfig(NetworkConfig):
    """MTSeg; the defaults are those of the released TRFE-Net."""

    targets: ClassVar[tuple[str, ...]] = ("x0",)
    name: str = "mtseg"
    """Entry of the registry of models."""
    widths: tuple[int, ...] = Field(default=(64, 128, 256, 512, 1024), min_length=2)
    """Channels by level, finest first; each level halves the resolution."""
    gland: int | None = Field(default=None, ge=0)
    """Which of the mask channels (``data.classes``), counted from 0, is the gland: where regions tell of it, its
    decoder learns from them; ``null``: it only learns which gate serves the nodules."""
