"""The result of segmenting one image, and how it is saved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from medsegdiff.errors import ConfigError
from medsegdiff.inference.labels import structures_of
from medsegdiff.inference.uncertainty import Uncertainty
from medsegdiff.io.raster import write_map, write_mask, write_picture
from medsegdiff.report.overlay import overlay
from medsegdiff.types import Geometry, Task


@dataclass(frozen=True)
class Segmentation:
    """A segmentation with its uncertainty, in the geometry of the image.

    Label maps are (h, w) with class indices for ``binary`` (0, 1) and ``exclusive``, and (k, h, w) with 0 and 1
    for ``regions``. Probabilities are (k, h, w); k = 1 for ``binary``.
    """

    name: str
    mask: UInt8[np.ndarray, ...]
    """The fused label map."""
    probability: Float[np.ndarray, "k h w"]
    """Of each channel, after fusion."""
    uncertainty: Uncertainty
    """Maps (h, w): std, entropy, disagreement."""
    members: UInt8[np.ndarray, "m ..."]
    """Label map of each member."""
    anchor: UInt8[np.ndarray, ...]
    """Label map of the Condition Model alone; never part of the fusion."""
    anchor_probability: Float[np.ndarray, "k h w"]
    sensitivity: Float[np.ndarray, "m k"] | None
    """By member, as STAPLE estimates it; ``None`` with another fusion."""
    specificity: Float[np.ndarray, "m k"] | None
    image: Float[np.ndarray, "c h w"]
    """The image as it was read."""
    geometry: Geometry
    task: Task
    classes: tuple[str, ...]

    def save(self, out: str | Path, *, members: bool = False) -> Path:
        """Write pictures: masks, probability, uncertainty, the anchor and an overlay to look at.

        ``masks/`` holds 0 and 255 (a folder per class where there are several), ``labels/`` class indices,
        ``probability/`` and ``uncertainty/`` (entropy) 0 … 1 as 16-bit grey, ``anchor/`` the Condition Model's own
        mask, ``overlay/`` the contours on the image.

        Args:
            out: Folder; made if it is missing.
            members: Whether each member's mask is written too, under ``members/00/`` ….

        Returns:
            The folder.

        Raises:
            ConfigError: If the folder holds images: its masks may be references.
        """
        if (Path(out) / "images").exists():
            raise ConfigError(f"{out} holds images, so its masks may be your references. Save into another folder.")
        out, file = Path(out), f"{self.name}.png"
        self._save_labels(out, self.mask)
        self._save_labels(out / "anchor", self.anchor)
        if members:
            for number, mask in enumerate(self.members):
                self._save_labels(out / "members" / f"{number:02d}", mask)
        for folder, values in self._by_class(out / "probability", self.probability):
            write_map(folder / file, values)
        write_map(out / "uncertainty" / file, self.uncertainty.entropy)
        write_picture(out / "overlay" / file, overlay(self.image, self.channels(self.mask), self.uncertainty.entropy))
        return out

    def channels(self, labels: UInt8[np.ndarray, ...]) -> UInt8[np.ndarray, "k h w"]:
        """Take a label map apart into one foreground mask per structure; the background is left out.

        Args:
            labels: Like ``mask``.

        Returns:
            0 and 1.
        """
        return structures_of(labels, self.task, len(self.classes))

    @property
    def structures(self) -> tuple[str, ...]:
        """Names of the foreground structures, one per channel of `channels`."""
        return self.classes[1:] if self.task == "exclusive" else self.classes

    def _save_labels(self, out: Path, labels: np.ndarray) -> None:
        file, masks = f"{self.name}.png", self.channels(labels)
        if len(masks) == 1:
            write_mask(out / "masks" / file, masks[0] * np.uint8(255))
        else:
            for structure, mask in zip(self.structures, masks, strict=True):
                write_mask(out / "masks" / structure / file, mask * np.uint8(255))
        if self.task != "regions":
            write_mask(out / "labels" / file, labels)

    def _by_class(self, folder: Path, values: np.ndarray) -> list[tuple[Path, np.ndarray]]:
        if len(self.classes) == 1:
            return [(folder, values[0])]
        return [(folder / name, v) for name, v in zip(self.classes, values, strict=True)]
