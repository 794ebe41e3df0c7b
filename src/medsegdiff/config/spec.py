"""What the data told, and with it a configuration that a network can be built from.

This module needs torch, for the label space; the rest of `medsegdiff.config` does not.
"""

from __future__ import annotations

from typing import Literal

from medsegdiff.config.base import Component
from medsegdiff.config.data import DataConfig, Modality, Plane
from medsegdiff.config.run import Config
from medsegdiff.labels import Labels
from medsegdiff.types import Task


class Orientation(Component):
    """What may be done to images so that they still look like images of the data."""

    mirrors: tuple[bool, bool] = (True, True)
    """Whether left and right, top and bottom may be turned around."""
    turn: float = 180.0
    """Degrees that they may be turned by, at most."""


class DataSpec(Component):
    """What a data set told of itself before training; nothing of it is missing."""

    labels: Labels
    """What the masks hold."""
    channels: int
    """Image channels."""
    modalities: tuple[Modality, ...]
    """Of the image channels."""
    window: tuple[float, float] | None = None
    """Hounsfield units that become −1 and 1; ``None`` without CT."""
    plane: Plane | Literal[""] = ""
    """How volumes are cut; empty for pictures."""
    channel_files: int = 1
    """Files per image, one per channel."""
    layout: str = ""
    """The entry of the registry of data sets that lists its files; empty for what is made on the fly."""
    orientation: Orientation = Orientation()
    """Mirrors and turns that training and views use."""
    raters: int = 1
    """Who drew masks of the same images."""


class ResolvedConfig(Config):
    """What was asked, and what the data told: what a run stores and a network is built from."""

    spec: DataSpec
    """What the data told."""

    @property
    def image_channels(self) -> int:
        """Channels that the network sees, those of neighbouring slices included."""
        return self.spec.channels * (1 + 2 * self.data.neighbours)

    @property
    def mask_channels(self) -> int:
        """K, channels of the mask."""
        return len(self.spec.labels.classes)

    @property
    def plane(self) -> Plane | Literal["auto"]:
        """How volumes are cut: as those of the training were, or as was asked of a model of pictures."""
        return self.spec.plane or self.data.plane

    @property
    def asked(self) -> Config:
        """What the user asked, without what the data told."""
        return Config(**{name: getattr(self, name) for name in Config.model_fields})

    @property
    def reading(self) -> DataConfig:
        """How other data are read like those of the training: what these told is now asked of others."""
        spec = self.spec
        told = {"channels": spec.channels, "task": spec.labels.task, "classes": spec.labels.classes}
        return self.data.model_copy(update=told | ({"plane": spec.plane} if spec.plane else {}))


def resolved(config: Config, spec: DataSpec) -> ResolvedConfig:
    """Put together what was asked and what was told."""
    return ResolvedConfig(**{name: getattr(config, name) for name in Config.model_fields}, spec=spec)


def assumed(config: Config) -> ResolvedConfig:
    """Complete a configuration without data, to count or time its network: colour pictures with one structure.

    What ``config.data`` asserts of the data is taken for true.
    """
    data = config.data
    classes = data.classes or ("foreground",)
    task: Task = data.task or ("binary" if len(classes) == 1 else "exclusive")
    natural: Modality = "natural"
    channels = data.channels or len(data.modalities or ()) or 3
    return resolved(
        config,
        DataSpec(
            labels=Labels(task, classes),
            channels=channels,
            modalities=data.modalities or (natural,) * channels,
            window=data.window,
            plane="" if data.plane == "auto" else data.plane,
        ),
    )
