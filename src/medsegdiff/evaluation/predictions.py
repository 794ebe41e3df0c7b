"""What was predicted of a case: masks, members and probabilities, read from their files when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer

from medsegdiff.data.mask_values import TWO_VALUES
from medsegdiff.data.masks import MaskFile, Masks, Stored
from medsegdiff.errors import DataError
from medsegdiff.fusion.fusers import FUSERS, Fused
from medsegdiff.fusion.mixture import Mixture
from medsegdiff.fusion.protocol import Raters
from medsegdiff.inference.folder import SegmentationFolder
from medsegdiff.inference.record import Record
from medsegdiff.io.image import read_geometry, read_map
from medsegdiff.io.names import folder_name
from medsegdiff.labels import Labels
from medsegdiff.types import Geometry

Predicted = tuple[Bool[np.ndarray, "*s"], Bool[np.ndarray, "m *s"] | None, Float[np.ndarray, "*s"] | None]
"""Of a structure: the mask, the members' masks, the probability."""


@dataclass(frozen=True)
class Maps:
    """Probability maps, grey pictures or volumes, by class and case."""

    root: Path
    files: tuple[Mapping[str, Path] | None, ...]
    """By channel: case → file; ``None`` for a background that was not saved."""

    @property
    def names(self) -> list[str]:
        """Cases that have all maps."""
        return sorted(set.intersection(*(set(of) for of in self.files if of is not None)))

    def paths(self, name: str) -> list[Path]:
        """List the files of a case."""
        return [of[name] for of in self.files if of is not None]

    def read(self, name: str, channel: int) -> Float[np.ndarray, "*s"]:
        """Read a map."""
        of = self.files[channel]
        if of is None:
            rest = [self.read(name, index) for index, files in enumerate(self.files) if files is not None]
            return np.clip(1 - sum(rest), 0, 1)
        values = read_map(of[name])
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 1 + 1e-6):
            raise DataError(f"{of[name]}: values go from {low:g} to {high:g}; probabilities lie in 0 … 1.")
        return np.minimum(values, 1)

    def decided(self, name: str, *, exclusive: bool) -> Callable[[int], Bool[np.ndarray, "*s"]]:
        """Decide which pixels are of a channel; give those of any."""
        if not exclusive:
            return lambda channel: self.read(name, channel) >= 0.5
        labels = self._label_map(name)
        return lambda channel: labels == channel

    def _label_map(self, name: str) -> Integer[np.ndarray, "*s"]:
        """Find the likeliest class of each pixel; of classes that are as likely, it is the first.

        The maps are read one after the other: of a volume, all may not fit into memory.
        """
        saved = [channel for channel, files in enumerate(self.files) if files is not None]
        highest = together = self.read(name, saved[0])
        labels = np.full(highest.shape, saved[0], np.min_scalar_type(len(self.files)))
        for channel in saved[1:]:
            values = self.read(name, channel)
            labels[values > highest] = channel
            highest, together = np.maximum(highest, values), together + values
        if self.files[0] is None:
            labels[np.clip(1 - together, 0, 1) >= highest] = 0
        return labels


@dataclass(frozen=True)
class Predictions:
    """Files of predictions by case; at least one of masks, members and maps is there."""

    root: Path
    labels: Labels
    masks: Masks | None = None
    """Fused, or the only ones."""
    members: tuple[Masks, ...] = ()
    maps: Maps | None = None
    uncertainty: Maps | None = None
    """One map per case, 0 … 1, as ``segment`` writes it."""
    fusion: str = "staple"
    """How members are fused where there are no masks; each structure by itself."""
    raters: int = 1
    """Whose majority that is to match, for fusions that can."""
    called: Mapping[str, str] = field(default_factory=dict)
    """What the model calls the structures, where it has names of its own."""

    @property
    def names(self) -> list[str]:
        """Cases of which there is a prediction."""
        first = self.masks or (self.members[0] if self.members else self.maps)
        return [] if first is None else first.names

    @property
    def where(self) -> Path:
        """The folder of the files, named in errors."""
        return self.masks.root if self.masks is not None else self.root

    @cached_property
    def mixtures(self) -> tuple[Mixture, ...]:
        """How ``segment`` made the maps, run by run; nothing of maps from elsewhere, and of those of a fusion."""
        made = SegmentationFolder.around(self.root).read()
        return () if made is None else made.mixtures

    @property
    def by_maps(self) -> bool:
        """Whether the maps are the probability, and not the share of members."""
        return self.maps is not None and (len(self.members) < 2 or bool(self.mixtures))

    @property
    def probability_is(self) -> str:
        """Where the foreground's probability comes from, in words; empty where there is none."""
        if not self.by_maps:
            return "The share of members that drew a pixel." if len(self.members) > 1 else ""
        assert self.maps is not None
        return f"The values in {self.maps.root.name}/." + self._told_of_maps()

    def _told_of_maps(self) -> str:
        made = SegmentationFolder.around(self.root).read()
        if made is None or folder_name(self.root) == "anchor":
            return ""
        if made.mixtures:
            shares = ", ".join(f"{mixture.weight:.0%}" for mixture in made.mixtures)
            runs = f", on average over {len(made.mixtures)} runs" if len(made.mixtures) > 1 else ""
            return f" They mix the anchor ({shares}) and what members expect, {_fitted(made)}{runs}."
        if made.sampling is None or made.sampling.fusion != "staple":
            return ""
        return (
            " They are STAPLE's posterior, surer than the share of members: segment with --save-members to score that."
        )

    def folders(self) -> list[Masks]:
        """List all folders of masks."""
        return ([] if self.masks is None else [self.masks]) + list(self.members)

    def count(self, name: str) -> int:
        """Count the members of a case; where they were drawn on demand, cases differ."""
        there = [member.has(name) for member in self.members]
        if there and not any(there):
            raise DataError(
                f"{self.root}: '{name}' has no member, though others have. Segment it again with its members, or move "
                "those of the others away to score the masks alone."
            )
        if there and (not there[0] or there != sorted(there, reverse=True)):
            missing = self.members[there.index(False)]
            raise DataError(
                f"{missing.root}: '{name}' is missing, but later members have it. Members of a case are numbered "
                "without gaps; segment again, or remove the others of this case."
            )
        return sum(there)

    def grids(self, name: str) -> list[tuple[MaskFile, Geometry]]:
        """Find out where the files of a case lie, from their headers."""
        found = [(path, of.reader.geometry(path)) for of in self.folders() for path in of.files(name)]
        return [*found, *((path, read_geometry(path)[0]) for path in self.map_files(name))]

    def map_files(self, name: str) -> list[Path]:
        """List the maps of a case."""
        return [path for of in (self.uncertainty, self.maps) if of is not None for path in of.paths(name)]

    def reader(self, name: str) -> Callable[[int], Predicted]:
        """Read the masks of a case; give what was predicted of a channel."""
        parts = [_channels(member, self.labels, name) for member in self.members if member.has(name)]
        decided = self._decided(name, drawn=bool(parts))

        def predicted(channel: int) -> Predicted:
            members = np.stack([part(channel) for part in parts]) if parts else None
            mask = self._fused(members) if decided is None else decided(channel)
            if self.by_maps and self.maps is not None:
                return mask, members, self.maps.read(name, channel)
            several = members is not None and len(members) > 1
            return mask, members, members.mean(axis=0, dtype=np.float32) if several and members is not None else None

        return predicted

    @property
    def _for_raters(self) -> bool:
        return "raters" in FUSERS[self.fusion].facts.get("takes", ())

    @property
    def fused_by(self) -> str:
        """How members are fused here, in words; empty where there are masks."""
        if self.masks is not None or not self.members:
            return ""
        several = self._for_raters and self.raters > 1
        return f"{self.fusion} for the majority of {self.raters} raters" if several else self.fusion

    def _decided(self, name: str, *, drawn: bool) -> Callable[[int], Bool[np.ndarray, "*s"]] | None:
        """Give the mask of a channel; ``None`` where members that were ``drawn`` are to be fused."""
        if self.masks is not None:
            return _channels(self.masks, self.labels, name)
        return None if drawn or self.maps is None else self.maps.decided(name, exclusive=self.labels.exclusive)

    def _fused(self, members: np.ndarray | None) -> np.ndarray:
        assert members is not None
        votes = torch.from_numpy(members.reshape(len(members), 1, 1, 1, -1)).float()
        told = {"raters": Raters(self.raters)} if self._for_raters else {}
        fused: Fused = FUSERS.build(self.fusion, votes, **told)
        mask = fused.probability >= 0.5 if fused.mask is None else fused.mask
        return mask.numpy().reshape(members.shape[1:])


def _fitted(made: Record) -> str:
    """Tell what the probability was calibrated on; a run that was not has no slopes."""
    if made.calibrated_on:
        return f"fitted on {made.calibrated_on} validation cases"
    scaled = {mixture.slopes != () for mixture in made.mixtures}
    if len(scaled) > 1:
        return "some of the runs not calibrated"
    return "as it was fitted for other ensembles" if scaled == {True} else "not calibrated"


def _channels(masks: Masks, labels: Labels, name: str) -> Callable[[int], Bool[np.ndarray, "*s"]]:
    """Read the files of a case; give the mask of a channel."""
    stored, made = masks.stored(name), masks.declared
    if masks.kind == "structures":  # a file each, of the background none
        each, first = Labels("regions", labels.structures), labels.foreground.start
        return lambda channel: masks.channel(stored, each, channel - first)[0].astype(bool)
    if made is not None and made.task != "binary":  # label maps of a model, whose values may differ
        names = made.classes
        return lambda channel: masks.channel(stored, made, names.index(labels.classes[channel]))[0].astype(bool)
    if labels.task == "binary" or (len(labels.classes) == 1 and _two_valued(stored)):
        labels = Labels(labels.task, labels.classes)  # 0 and 1, or class indices, not the data set's own values
    return lambda channel: masks.channel(stored, labels, channel)[0].astype(bool)


def _two_valued(stored: Stored) -> bool:
    return all({*np.unique(values).tolist()} in TWO_VALUES for _, values in stored)
