"""A segmentation with its uncertainty, in the geometry of the image: arrays, and what is told of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from medsegdiff.inference.members import agreement_of, sizes_of
from medsegdiff.inference.parts import Part
from medsegdiff.inference.sizes import Size, stated_sizes
from medsegdiff.labels import Labels
from medsegdiff.metrics.intervals import Stretch
from medsegdiff.types import Geometry


@dataclass(frozen=True, kw_only=True)
class Result(Part):
    """What an exported run says of an image; the arrays are those of `Part`."""

    name: str
    geometry: Geometry
    labels: Labels
    """What the channels are, and the values that label maps are written with."""
    stretch: Mapping[str, Stretch] | None = field(default_factory=dict)
    """What calibrates the intervals of sizes, by structure; nothing where they are not calibrated; ``None`` where no
    size can be told, without members."""

    def agreement(self) -> float:
        """Measure how much members agree.

        Returns:
            Mean Dice of all pairs of members and structures; 1 for a single member.
        """
        return agreement_of(self.members, self.labels)

    def sizes(self) -> dict[str, Size]:
        """Measure area or volume of each structure, with an interval for the true one.

        Returns:
            By structure: mean and 90 % interval, in pixels for pictures (mm² where the spacing is known), in mL for
            volumes; nothing of a single member, or without members.
        """
        if self.stretch is None:
            return {}
        counts = sizes_of(self.members, self.labels) if self.choice is None else self.choice.sizes
        return stated_sizes(counts, self.labels.structures, self.geometry, stretch=self.stretch)
