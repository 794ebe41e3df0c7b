"""Volumes with masks, as a layout lists them, seen slice by slice."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from medsegdiff.config.data import DataConfig, Plane
from medsegdiff.data.dataset import DataInfo, Track, in_silence
from medsegdiff.data.listing import Listing
from medsegdiff.data.slicing import Slicing, common_plane
from medsegdiff.data.source import ListedSource, check_grids
from medsegdiff.data.transforms import intensity_of
from medsegdiff.errors import DataError, some
from medsegdiff.io.image import count_channels, read_channels, read_geometry
from medsegdiff.types import Case


@dataclass(frozen=True)
class Volume:
    """A volume on its native grid, with its masks."""

    image: Float[np.ndarray, "c i j k"]
    masks: list[tuple[Path, UInt8[np.ndarray, "i j k"]]]
    """As they are stored."""
    slicing: Slicing
    intensity: Float[np.ndarray, "c 2"]


class VolumeSource(ListedSource):
    """Slices of volumes: each is a case of its own, normalised with the numbers of its volume."""

    def __init__(self, listing: Listing, config: DataConfig, *, track: Track = in_silence) -> None:
        """Look through the files, and at every mask for the slices that hold a structure."""
        cases = listing.cases.values()
        check_channels_alike({case.images[0]: count_channels(case.images) for case in cases})
        grids = {case.name: read_geometry(case.images[0])[0] for case in cases}
        self.plane: Plane = common_plane(grids.values(), config.plane)
        self.neighbours = config.neighbours
        slices = {name: Slicing(grid, self.plane).names(name) for name, grid in grids.items()}
        self._keys = {item: (name, index) for name, items in slices.items() for index, item in enumerate(items)}
        self._foreground: set[tuple[str, int]] = set()
        super().__init__(listing, config, track=track)
        held = frozenset(item for item, key in self._keys.items() if key in self._foreground)
        self.info: DataInfo = dataclasses.replace(self.info, plane=self.plane, slices=slices, foreground=held)

    def check(self, name: str) -> set[int]:
        """Compare the grids of a volume and its masks, and find the slices with a structure."""
        geometry = check_grids(self.labelled[name], self.masks)
        stored = np.stack([values for _, values in self.masks.stored(name)])
        nobody = self.masks.declared.ignore if self.masks.declared else None
        areas = Slicing(geometry, self.plane).areas((stored > 0) & (stored != (-1 if nobody is None else nobody)))
        self._foreground |= {(name, index) for index in np.flatnonzero(areas).tolist()}
        return {int(value) for value in np.unique(stored)}

    def load(self, name: str) -> Case:
        """Cut a slice."""
        volume, index = self._keys[name]
        whole = self.volume(volume)
        slicing, intensity = whole.slicing, whole.intensity
        case = slicing.case(name, whole.image, index, intensity=intensity, neighbours=self.neighbours)
        if not whole.masks:
            return case
        stored = [(path, slicing.cut(values, index)) for path, values in whole.masks]
        labels = self.info.labels
        mask, ignored = self.masks.coded(stored, labels), self.masks.ignored(stored, labels)
        return dataclasses.replace(case, mask=mask, ignored=ignored)

    @functools.lru_cache(maxsize=1)  # noqa: B019  (slices are asked for volume by volume; the source lives as long)
    def volume(self, name: str) -> Volume:
        """Read a whole volume."""
        image, geometry = read_channels(self.listing.cases[name].images)
        slicing = Slicing(geometry, self.plane)
        return Volume(image, self.masks.stored(name), slicing, intensity_of(slicing.turned(image)))


def check_channels_alike(channels: Mapping[Path, int]) -> None:
    """Refuse volumes with different numbers of channels: which sequence would be which?"""
    examples = {count: path for path, count in channels.items()}
    if len(examples) > 1:
        shown = some([f"{path} has {count}" for count, path in examples.items()])
        raise DataError(
            f"The volumes differ in their channels: {shown}. Give each the same channels in the same order."
        )
