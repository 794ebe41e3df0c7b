"""Images with masks, as a layout lists them: pictures as they are, volumes slice by slice."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from medsegdiff.config.data import DataConfig
from medsegdiff.data.dataset import DataInfo, Track, no_progress
from medsegdiff.data.listing import Listing
from medsegdiff.data.masks import Stored, missing_structures
from medsegdiff.data.scan import scan, unlabelled
from medsegdiff.data.slicing import Slicing
from medsegdiff.data.split import make_split
from medsegdiff.data.transforms import intensity_of
from medsegdiff.errors import DataError, some
from medsegdiff.io.image import read_channels
from medsegdiff.types import Case


class ListedSource:
    """Images and masks from files."""

    def __init__(self, listing: Listing, config: DataConfig, *, track: Track = no_progress) -> None:
        """Look through the files and make sure that images and masks fit together."""
        self.listing, self.masks = listing, listing.masks
        known = set(self.masks.names)
        self.labelled = {name: case for name, case in listing.cases.items() if name in known}
        self._check_pairs()
        self.scan = scan(listing, config, self.scanned, track=track, strict=True)
        if self.scan.values == {0}:
            raise DataError(f"{self.masks.root}: every mask is empty (all values are 0). There is nothing to learn.")
        files = {len(case.images) for case in self.labelled.values()}
        self.info = DataInfo(
            channels=self.scan.channels,
            labels=self.scan.labels(config),
            raters=self.masks.folders if self.masks.kind == "raters" else ("reference",),
            split=make_split(listing.cases, config),
            layout=listing.layout,
            modalities=listing.modalities,
            channel_files=files.pop() if len(files) == 1 else 1,
        )

    @property
    def scanned(self) -> Iterable[str]:
        """Names of the cases whose files are looked through."""
        return self.labelled

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
        missing = unlabelled(self.listing)
        if not self.masks.names and not self.masks.root.exists():
            raise DataError(f"{self.masks.root}: there is no such folder; masks are expected there.")
        if missing or not self.labelled:
            raise DataError(
                f"{len(missing)} of {len(self.listing.cases)} images have no mask: {some(missing)}. "
                f"Put a mask of the same name where the others are ({self.masks.root}), or remove the images."
            )
        if incomplete := missing_structures(self.masks.incomplete(self.labelled)):
            raise DataError(
                f"{self.masks.root}: structures are missing: {some(incomplete)}. Save an empty mask for each; "
                "if the sub-folders are raters, set data.mask_folders=raters."
            )


@dataclass(frozen=True)
class Volume:
    """A volume on its native grid, with its masks."""

    image: Float[np.ndarray, "c i j k"]
    masks: Stored
    slicing: Slicing
    intensity: Float[np.ndarray, "c 2"]


class VolumeSource(ListedSource):
    """Slices of volumes: each is a case of its own, normalised with the numbers of its volume."""

    def __init__(self, listing: Listing, config: DataConfig, *, track: Track = no_progress) -> None:
        """Look through the files, and at every mask for the slices that hold a structure."""
        super().__init__(listing, config, track=track)
        self.plane, self.neighbours = self.scan.plane or "axial", config.neighbours
        slices = {name: Slicing(grid, self.plane).names(name) for name, grid in self.scan.grids.items()}
        self._keys = {item: (name, index) for name, items in slices.items() for index, item in enumerate(items)}
        held = [slices[name][index] for name, case in self.scan.cases.items() for index in case.foreground]
        self.info: DataInfo = dataclasses.replace(
            self.info, plane=self.plane, slices=slices, foreground=frozenset(held)
        )

    @property
    def scanned(self) -> Iterable[str]:
        """All: how volumes are cut follows from those without masks, too."""
        return self.listing.cases

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
