"""Pictures with masks, as a layout lists them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from medsegdiff.config.data import DataConfig
from medsegdiff.data.dataset import DataInfo, Track, in_silence
from medsegdiff.data.listing import CaseFiles, Listing
from medsegdiff.data.masks import Masks
from medsegdiff.data.split import make_split
from medsegdiff.errors import DataError, GeometryError, size, some
from medsegdiff.io.grid import check_same_grid
from medsegdiff.io.image import count_channels, read_channels, read_geometry
from medsegdiff.types import Case, Geometry


class ListedSource:
    """Images and masks from files."""

    def __init__(self, listing: Listing, config: DataConfig, *, track: Track = in_silence) -> None:
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
