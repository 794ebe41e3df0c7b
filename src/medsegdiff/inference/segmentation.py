"""The result of segmenting one image: arrays, and where they lie."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from medsegdiff.inference.members import agreement_of, sizes_of
from medsegdiff.inference.parts import Part
from medsegdiff.inference.review import Quality
from medsegdiff.inference.sizes import Size, stated_sizes
from medsegdiff.inference.writer import USUAL, findings_of, write_result
from medsegdiff.io.dicom_report import Finding
from medsegdiff.io.names import case_name
from medsegdiff.labels import Labels
from medsegdiff.metrics.intervals import Stretch
from medsegdiff.metrics.measures import Measures, measures_of
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
    stretch: Mapping[str, Stretch] | None = field(default_factory=dict)
    """What calibrates the intervals of sizes, by structure; nothing where they are not calibrated; ``None`` where no
    size can be told, without members."""
    judging: Callable[[Segmentation], Mapping[str, Quality]] | None = None
    """What calibration has taught, at work; ``None`` where it was not of such masks."""
    codes: Mapping[str, str] = field(default_factory=dict)
    """What DICOM calls the structures: see `medsegdiff.io.dicom_codes`."""

    @classmethod
    def of(
        cls,
        case: Case,
        part: Part,
        *,
        labels: Labels,
        stretch: Mapping[str, Stretch] | None = None,
        judging: Callable[[Segmentation], Mapping[str, Quality]] | None = None,
        codes: Mapping[str, str] | None = None,
    ) -> Segmentation:
        """Join what a model says of an image with where the image lies.

        Args:
            case: The image.
            part: What the model says of it.
            labels: What the channels are.
            stretch: What calibrates the intervals of sizes.
            judging: Says how good its masks may be expected to be.
            codes: What DICOM calls the structures.

        Returns:
            The result.
        """
        return cls(
            name=case.name,
            image=case.image,
            geometry=case.geometry,
            labels=labels,
            stretch=stretch,
            judging=judging,
            codes=codes or {},
            **vars(part),
        )

    def save(self, out: str | Path, *, members: bool = False, parts: Collection[str] = USUAL) -> Path:
        """Write masks, probability, uncertainty, any anchor and an overlay to look at: as PNG, volumes as NIfTI.

        ``masks/`` holds 0 and 255 (0 and 1 in NIfTI; a folder per class where there are several), ``labels/``
        class indices, with their names and colours for ITK-SNAP and 3D Slicer, ``probability/`` and
        ``uncertainty/`` (entropy) 0 … 1 (as 16-bit grey in PNG), ``anchor/`` the Condition Model's own mask, if the
        network has one, of pictures its probability too, ``overlay/`` the contours on the image, of a volume on some
        of its slices.
        For a DICOM series ``dicom-seg/`` holds the masks as DICOM-SEG that refers to its slices. On request there are
        ``rtstruct/`` (contours), ``dicom-sr/`` (a report with volumes and predicted quality), ``dicom-pm/``
        (uncertainty and probabilities as parametric maps) and ``dicom-fractional/`` (probabilities as segments);
        of a picture ``geojson/`` (outlines).

        Args:
            out: Folder; made if it is missing.
            members: Whether each member's mask is written too, under ``members/00/`` ….
            parts: Which of these folders are written.

        Returns:
            The folder.

        Raises:
            ConfigError: If the folder holds images: its masks may be references. If there is no such part.
            DataError: If the name of the case, or that of a class, can't be that of a file in the folder.
        """
        name = case_name(self.name, where="A result")
        case = Case(name, self.image, None, self.geometry)
        wanted = {*parts, *(("members",) if members else ())}
        told = self.findings() if "dicom-sr" in wanted else None
        write_result(Path(out), self, case, self.labels, parts=wanted, findings=told, codes=self.codes)
        return Path(out)

    def findings(self) -> dict[str, Finding]:
        """Put together what DICOM tells of each structure: its volume, and what is predicted of its mask."""
        return findings_of(self.measures(), self.sizes(), self.quality)

    @cached_property
    def quality(self) -> Mapping[str, Quality]:
        """What may be expected of each mask, and why a human must look; nothing before ``medsegdiff calibrate``."""
        return {} if self.judging is None else self.judging(self)

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays, in memory or in temporary files."""
        arrays = (*vars(self).values(), *vars(self.uncertainty).values())
        return sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))

    @property
    def chosen_of(self) -> int | None:
        """Among how many candidates the members were chosen; ``None`` where all that were drawn are members."""
        return None if self.choice is None else len(self.choice.sizes)

    def agreement(self) -> float:
        """Measure how much members agree: those that were kept, where they were chosen among candidates.

        Returns:
            Mean Dice of all pairs of members and structures; 1 for a single member.
        """
        return agreement_of(self.members, self.labels)

    def counts(self) -> Int[np.ndarray, "m n"]:
        """Count the pixels or voxels of each member, of all candidates where members were chosen among some.

        Returns:
            By member and structure.
        """
        return sizes_of(self.members, self.labels) if self.choice is None else self.choice.sizes

    def sizes(self) -> dict[str, Size]:
        """Measure area or volume of each structure, with an interval for the true one.

        It is the interval in which 90 % of the members lie (of all candidates, where members were chosen among some),
        moved outwards or inwards as validation cases ask for (``stretch``): members differ less, or more, than
        references do, so that without it the interval does not hold the true size as often as it says.

        Returns:
            By structure: mean and interval, in pixels for pictures (mm² where the spacing is known), in mL for
            volumes; nothing of a single member, or without members.
        """
        if self.stretch is None:
            return {}
        return stated_sizes(self.counts(), self.labels.structures, self.geometry, stretch=self.stretch)

    def measures(self) -> dict[str, Measures]:
        """Measure the fused mask: size, components, diameter, place, and whether the image holds all of it.

        Returns:
            By structure, of those too that the mask does not hold.
        """
        return measures_of(self.mask, self.labels, self.geometry)
