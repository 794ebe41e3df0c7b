"""Images with masks, as a layout lists them: pictures as they are, volumes slice by slice."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from medsegdiff.config.data import DataConfig, Plane
from medsegdiff.data.dataset import DataInfo, Track, no_progress
from medsegdiff.data.listing import CaseFiles, Listing
from medsegdiff.data.masks import Masks
from medsegdiff.data.slicing import Slicing, common_plane
from medsegdiff.data.split import make_split
from medsegdiff.data.transforms import intensity_of
from medsegdiff.errors import DataError, GeometryError, size, some
from medsegdiff.io.grid import check_same_grid
from medsegdiff.io.image import count_channels, read_channels, read_geometry
from medsegdiff.types import Case, Geometry


class ListedSource:
    """Images and masks from files."""

    def __init__(self, listing: Listing, config: DataConfig, *, track: Track = no_progress) -> None:
        """Look through the files and make sure that images and masks fit together."""
        self.listing, self.masks = listing, listing.masks
        known = set(self.masks.names)
        self.labelled = {name: case for name, case in listing.cases.items() if name in known}
        self._check_pairs()
        values: set[int] = set()
        for name in track(sorted(self.labelled), "Looking through the masks"):
            values |= self.check(name)
        if values == {0}:
            raise DataError(f"{self.masks.root}: every mask is empty (all values are 0). There is nothing to learn.")
        labels = self.masks.labels(values, task=config.task, classes=config.classes)
        files = {len(case.images) for case in self.labelled.values()}
        self.info = DataInfo(
            channels=max(count_channels(case.images) for case in self.labelled.values()),
            labels=labels,
            raters=self.masks.folders if self.masks.kind == "raters" else ("reference",),
            split=make_split(listing.cases, config),
            layout=listing.layout,
            modalities=listing.modalities,
            channel_files=files.pop() if len(files) == 1 else 1,
        )

    def check(self, name: str) -> set[int]:
        """Compare an image with its masks."""
        check_grids(self.labelled[name], self.masks)
        return self.masks.values(name)

    def load(self, name: str) -> Case:
        """Read a case."""
        image, geometry = read_channels(self.listing.cases[name].images)
        if name not in self.labelled:
            return Case(name, image, None, geometry)
        stored = self.masks.stored(name)
        labels = self.info.labels
        mask, ignored = self.masks.coded(stored, labels), self.masks.ignored(stored, labels)
        return Case(name, image, mask, geometry, ignored=ignored)

    def _check_pairs(self) -> None:
        missing = unlabelled(self.listing.cases, self.masks.names)
        if not self.masks.names and not self.masks.root.exists():
            raise DataError(f"{self.masks.root}: there is no such folder; masks are expected there.")
        if missing or not self.labelled:
            raise DataError(
                f"{len(missing)} of {len(self.listing.cases)} images have no mask: {some(missing)}. "
                f"Put a mask of the same name where the others are ({self.masks.root}), or remove the images."
            )
        if incomplete := self.masks.incomplete(self.labelled):
            raise DataError(
                f"{self.masks.root}: structures are missing: {some(incomplete)}. Save an empty mask for each; "
                "if the sub-folders are raters, set data.mask_folders=raters."
            )


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

    def __init__(self, listing: Listing, config: DataConfig, *, track: Track = no_progress) -> None:
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


def unlabelled(cases: Mapping[str, CaseFiles], names: Sequence[str]) -> list[str]:
    """List the cases that should have a mask and have none; of a test set it may be secret."""
    known = set(names)
    return sorted(name for name, case in cases.items() if case.part != "test" and name not in known)


def check_grids(case: CaseFiles, masks: Masks) -> Geometry:
    """Make sure that the channels of an image and its masks lie on one grid."""
    first, *others = case.images
    geometry = read_geometry(first)[0]
    channels = [(path, read_geometry(path)[0]) for path in others]
    for path, other in (*channels, *((path, masks.reader.geometry(path)) for path in masks.files(case.name))):
        if other.shape != geometry.shape:
            unit = " (height×width)" if len(geometry.shape) == 2 else ""
            raise GeometryError(
                f"{first} is {size(geometry.shape)} but {path} is {size(other.shape)}{unit}. "
                "They must lie on the same grid."
            )
        check_same_grid(geometry, other, names=(str(first), str(path)))
    return geometry
