"""The result of segmenting one image, and how it is saved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from medsegdiff.errors import ConfigError
from medsegdiff.inference.parts import Part
from medsegdiff.inference.uncertainty import agreement_of
from medsegdiff.io.dicom import DicomHeader
from medsegdiff.io.dicom_seg import write_segmentation
from medsegdiff.io.image import write_labels, write_map, write_mask
from medsegdiff.io.label_table import write_label_tables
from medsegdiff.io.mapped import release
from medsegdiff.io.names import file_name
from medsegdiff.io.raster import write_picture
from medsegdiff.labels import Labels
from medsegdiff.pictures.overlay import colour_of, overlay, sheet
from medsegdiff.types import Case, Geometry


@dataclass(frozen=True, kw_only=True)
class Segmentation(Part):
    """A segmentation with its uncertainty, in the geometry of the image."""

    name: str
    image: Float[np.ndarray, "c *s"]
    """The image as it was read."""
    geometry: Geometry
    labels: Labels
    """What the channels are, and the values that label maps are written with."""

    @classmethod
    def of(cls, case: Case, part: Part, *, labels: Labels) -> Segmentation:
        """Join what a model says of an image with where the image lies.

        Args:
            case: The image.
            part: What the model says of it.
            labels: What the channels are.

        Returns:
            The result.
        """
        return cls(name=case.name, image=case.image, geometry=case.geometry, labels=labels, **vars(part))

    def save(self, out: str | Path, *, members: bool = False) -> Path:
        """Write masks, probability, uncertainty, any anchor and an overlay to look at: as PNG, volumes as NIfTI.

        ``masks/`` holds 0 and 255 (0 and 1 in NIfTI; a folder per class where there are several), ``labels/``
        class indices, with their names and colours for ITK-SNAP and 3D Slicer, ``probability/`` and
        ``uncertainty/`` (entropy) 0 … 1 (as 16-bit grey in PNG), ``anchor/`` the Condition Model's own mask, if the
        network has one, of pictures its probability too, ``overlay/`` the contours on the image, of a volume on some
        of its slices.
        For a DICOM series ``dicom-seg/`` holds the masks as DICOM-SEG that refers to its slices, and the
        probabilities (``NAME_probability.dcm``, one per structure).

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
        out = Path(out)
        self._save_labels(out, self.mask)
        if self.anchor is not None:
            self._save_labels(out / "anchor", self.anchor)
        if members:
            for number, mask in enumerate(self.members):
                self._save_labels(out / "members" / f"{number:02d}", mask)
        self._save_maps(out / "probability", self.probability)
        if self.anchor_probability is not None:
            self._save_maps(out / "anchor" / "probability", self.anchor_probability)
        write_map(out / "uncertainty", self.name, self.uncertainty.entropy, self.geometry)
        if isinstance(self.geometry.header, DicomHeader):
            self._save_dicom(out / "dicom-seg")
        write_picture(out / "overlay" / f"{self.name}.png", self._overlay())
        return out

    def _save_labels(self, out: Path, labels: np.ndarray) -> None:
        structures = self.labels.structures
        for index, name in enumerate(structures):
            folder = out / "masks" if len(structures) == 1 else out / "masks" / file_name(name)
            write_mask(folder, self.name, self.labels.mask(labels, index), self.geometry)
        written = self.labels.write(labels)
        if written is None:
            return
        write_labels(out / "labels", self.name, written, self.geometry)
        release(labels)
        values = zip(self.labels.label_values, map(colour_of, range(len(structures))), strict=True)
        write_label_tables(out / "labels", dict(zip(structures, values, strict=True)))

    def _save_dicom(self, folder: Path) -> None:
        names = self.labels.structures
        write_segmentation(
            folder / f"{self.name}.dcm", self.labels.masks(self.mask), geometry=self.geometry, labels=names
        )
        probability = self.probability[self.labels.foreground]  # the background is no segment
        for name, values in zip(names, probability, strict=True):  # one by one: they are large
            ending = "" if len(names) == 1 else f"_{file_name(name)}"
            path = folder / f"{self.name}_probability{ending}.dcm"
            write_segmentation(path, values[None], geometry=self.geometry, labels=(name,), kind="FRACTIONAL")
            release(self.probability)

    def _overlay(self) -> UInt8[np.ndarray, "h w 3"]:
        if self.geometry.affine is None:
            return overlay(self.image, self.labels.masks(self.mask), self.uncertainty.entropy)
        return sheet(self.image, self.mask, self.uncertainty.entropy, self.geometry, split=self.labels.masks)

    def agreement(self) -> float:
        """Measure how much members agree.

        Returns:
            Mean Dice of all pairs of members and structures; 1 for a single member.
        """
        return agreement_of(self.members, self.labels)

    def _save_maps(self, folder: Path, values: np.ndarray) -> None:
        for name, of_class in zip(self.labels.classes, values, strict=True):
            inner = folder if len(self.labels.classes) == 1 else folder / file_name(name)
            write_map(inner, self.name, of_class, self.geometry)
            release(values)
