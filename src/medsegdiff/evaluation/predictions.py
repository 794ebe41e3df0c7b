"""What was predicted: fused masks, members, probabilities; `finding` finds them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float

from medsegdiff.data.masks import Masks
from medsegdiff.errors import DataError
from medsegdiff.evaluation.maps import Maps
from medsegdiff.evaluation.segmented import surer
from medsegdiff.fusion.fusers import FUSERS
from medsegdiff.io.image import read_geometry
from medsegdiff.labels import TWO_VALUES, Labels
from medsegdiff.types import Geometry

Predicted = tuple[Bool[np.ndarray, "*s"], Bool[np.ndarray, "m *s"] | None, Float[np.ndarray, "*s"] | None]
"""Of a structure: the mask, the members' masks, the probability."""


@dataclass(frozen=True)
class Predictions:
    """Files of predictions by case; at least one of masks, members and maps is there."""

    root: Path
    coding: Labels
    masks: Masks | None = None
    """Fused, or the only ones."""
    members: tuple[Masks, ...] = ()
    maps: Maps | None = None
    uncertainty: Maps | None = None
    """One map per case, 0 … 1, as ``segment`` writes it."""
    fusion: str = "staple"
    """How members are fused where there are no masks; each structure by itself."""

    @property
    def names(self) -> list[str]:
        """Cases of which there is a prediction."""
        first = self.masks or (self.members[0] if self.members else self.maps)
        return [] if first is None else first.names

    @property
    def where(self) -> Path:
        """The folder of the files, named in errors."""
        return self.masks.root if self.masks is not None else self.root

    @property
    def probability_is(self) -> str:
        """Where the foreground's probability comes from, in words; empty where there is none."""
        if len(self.members) > 1:
            return "The share of members that drew a pixel."
        return "" if self.maps is None else f"The values in {self.maps.root.name}/." + surer(self.root)

    def folders(self) -> list[Masks]:
        """List all folders of masks."""
        return ([] if self.masks is None else [self.masks]) + list(self.members)

    def count(self, name: str) -> int:
        """Count the members of a case; where they were drawn on demand, cases differ."""
        there = [member.has(name) for member in self.members]
        if there and (not there[0] or there != sorted(there, reverse=True)):
            missing = self.members[there.index(False)]
            raise DataError(
                f"{missing.root}: '{name}' is missing, but later members have it. Members of a case are numbered "
                "without gaps; segment again, or remove the others of this case."
            )
        return sum(there)

    def grids(self, name: str) -> list[tuple[Path, Geometry]]:
        """Find out where the files of a case lie, from their headers."""
        found = [(path, of.reader.geometry(path)) for of in self.folders() for path in of.files(name)]
        if self.uncertainty is not None:
            found += [(path, read_geometry(path)[0]) for path in self.uncertainty.paths(name)]
        if self.maps is not None:
            found += [(path, read_geometry(path)[0]) for path in self.maps.paths(name)]
        return found

    def reader(self, name: str) -> Callable[[int], Predicted]:
        """Read the masks of a case."""
        fused = None if self.masks is None else _channels(self.masks, self.coding, name)
        parts = [_channels(member, self.coding, name) for member in self.members if member.has(name)]

        def predicted(channel: int) -> Predicted:
            members = np.stack([part(channel) for part in parts]) if parts else None
            p = self._probability(name, channel, members)
            mask = self._fused(name, channel, members) if fused is None else fused(channel)
            return mask, members, p

        return predicted

    def _probability(self, name: str, channel: int, members: np.ndarray | None) -> np.ndarray | None:
        if members is not None and len(members) > 1:
            return members.mean(axis=0, dtype=np.float32)
        return None if self.maps is None else self.maps.read(name, channel)

    def _fused(self, name: str, channel: int, members: np.ndarray | None) -> np.ndarray:
        if members is None:
            assert self.maps is not None
            return self.maps.decided(name, channel, exclusive=self.coding.task == "exclusive")
        votes = torch.from_numpy(members.reshape(len(members), 1, 1, 1, -1)).float()
        fused = FUSERS.build(self.fusion, votes).probability >= 0.5
        return fused.numpy().reshape(members.shape[1:])


def _channels(masks: Masks, coding: Labels, name: str) -> Callable[[int], Bool[np.ndarray, "*s"]]:
    """Read the files of a case; give the mask of a channel."""
    stored = masks.stored(name)
    if masks.kind == "structures" or coding.task == "binary" or (len(coding.classes) == 1 and _two_valued(stored)):
        coding = Labels(coding.task, coding.classes)  # 0 and 1, or class indices, not the data set's own values
    return lambda channel: masks.channel(stored, coding, channel)[0].astype(bool)


def _two_valued(stored: Sequence[tuple[Path, np.ndarray]]) -> bool:
    return all({*np.unique(values).tolist()} in TWO_VALUES for _, values in stored)
