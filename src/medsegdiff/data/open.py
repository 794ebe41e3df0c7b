"""From what a user names to a data set: which layout a folder has, and the sources that read it."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from medsegdiff.config.data import DataConfig
from medsegdiff.data.dataset import DATASETS, DataInfo, DataSource, Layout, Listing, Track, no_progress
from medsegdiff.data.intensity import intensity_of
from medsegdiff.data.masks import COMPLETED, Stored, missing_structures
from medsegdiff.data.scan import check_grids, no_masks, passed_over, scan, unlabelled
from medsegdiff.data.slicing import Slicing
from medsegdiff.data.split import Before, make_split
from medsegdiff.errors import ConfigError, DataError, nearest, some
from medsegdiff.io.image import read_channels
from medsegdiff.registry import Entry
from medsegdiff.types import Case, Geometry

LAST = ("tree", "folder")
"""Layouts that fit much: they are asked after all others, those of plug-ins too."""


def open_source(
    where: str | Path, config: DataConfig, *, before: Before | None = None, track: Track = no_progress
) -> DataSource:
    """Open data on disk, whose layout is detected, or a data set that is made, by its name.

    Where a split is drawn, cases stay in the part that they had ``before``.
    """
    if Path(where).exists():
        listing = list_cases(Path(where), config)
        return (VolumeSource if listing.volumes else ListedSource)(listing, config, before=before, track=track)
    made = [entry.name for entry in DATASETS if kind_of(entry) == "generated"]
    if str(where) in made:
        source: DataSource = DATASETS.build(str(where), config)
        return source
    if str(where) in DATASETS:
        raise DataError(
            f"{where}: there is no such folder; '{where}' is the name of a layout. Give the folder that holds the data "
            f"set: its layout is detected, or set with data.layout={where}."
        )
    raise DataError(
        f"{where}: there is no such folder, and no built-in data set of that name. "
        f"Give a folder with images/ and masks/, or one of: {', '.join(made)}.{nearest(str(where), made)}"
    )


def list_cases(root: Path, config: DataConfig, *, images_alone: bool = False) -> Listing:
    """List the cases of a data set on disk; it does not matter what its masks are where ``images_alone`` are wanted."""
    name = detect(root) if config.layout == "auto" else config.layout
    entry = DATASETS[name or ("tree" if config.image_dir or config.mask_dir else "folder")]
    if kind_of(entry) == "generated":
        raise ConfigError(f"data.layout is '{name}', which is not on disk; allowed are auto, {', '.join(layouts())}.")
    listing: Listing = entry.factory(root, config)
    if not listing.cases:
        raise DataError(f"{root}: the layout '{entry.name}' finds no case here.")
    if images_alone:
        return listing
    if listing.doubts:
        raise DataError(f"{root}: {' '.join(listing.doubts)}")
    return replace(listing, masks=listing.masks.above(config.mask_threshold))


def detect(root: Path) -> str | None:
    """Find out which layout a folder has: benchmarks are asked first, the plain folder last."""
    fitting = [name for name in layouts() if matches(name, root)]
    benchmarks = [name for name in fitting if kind_of(DATASETS[name]) == "benchmark"]
    if len(benchmarks) > 1:
        raise DataError(f"{root}: looks like each of {some(benchmarks)}. Say which with data.layout.")
    return next(iter(benchmarks or fitting), None)


def kind_of(entry: Entry[Any, dict[str, Any]]) -> str:
    """Tell what a registered data set is."""
    return str(entry.facts.get("kind", "generated"))


def matches(name: str, root: Path, *, asked: bool = False) -> bool:
    """Tell whether a folder has a layout; ``asked`` for by name, also one that is never detected by itself."""
    if asked:
        return name in layouts() and matches(str(DATASETS[name].facts.get("variant_of", name)), root)
    layout: Layout = DATASETS[name].factory  # type: ignore[assignment]
    return layout.detect(root)


def layouts() -> list[str]:
    """List the layouts: those of benchmarks, then those that tell most of themselves."""
    kinds = ("benchmark", "layout")
    return sorted((entry.name for kind in kinds for entry in DATASETS if kind_of(entry) == kind), key=LAST.count)


class ListedSource:
    """Images and masks from files."""

    def __init__(
        self,
        listing: Listing,
        config: DataConfig,
        *,
        before: Before | None = None,
        track: Track = no_progress,
    ) -> None:
        """Look through the files and make sure that images and masks fit together."""
        self.listing, self.masks = listing, listing.masks
        known = set(self.masks.names)
        self.labelled = {name: case for name, case in listing.cases.items() if name in known}
        self._check_pairs()
        self.scan = scan(listing, config, self.scanned, track=track, strict=True)
        self.listing = listing = self.scan.listing
        if self.scan.values == {0}:
            raise DataError(f"{self.masks.root}: every mask is empty (all values are 0). There is nothing to learn.")
        files = {len(case.images) for case in self.labelled.values()}
        self.info = DataInfo(
            channels=self.scan.channels,
            labels=self.scan.labels(config),
            raters=self.masks.folders if self.masks.kind == "raters" else ("reference",),
            split=make_split(listing.cases, config, before=before),
            groups={name: case.group for name, case in listing.cases.items() if case.group},
            layout=listing.layout,
            understood=listing.understood,
            modalities=self.scan.modalities(config),
            channel_files=files.pop() if len(files) == 1 else 1,
            passed_over=tuple(passed_over(listing)),
        )

    @property
    def scanned(self) -> Iterable[str]:
        """Names of the cases whose files are looked through."""
        return self.labelled

    def load(self, name: str) -> Case:
        """Read a case."""
        image, geometry, stored = self.read(name)
        if not stored:
            return Case(name, image, None, geometry)
        labels = self.info.labels
        mask, ignored = self.masks.coded(stored, labels), self.masks.ignored(stored, labels)
        return Case(name, image, mask, geometry, ignored=ignored)

    def read(self, name: str) -> tuple[Float[np.ndarray, "c *s"], Geometry, Stored]:
        """Read image and masks of a case, and make sure that pixels, not headers alone, lie on each other."""
        path, *_ = images = self.listing.cases[name].images
        image, geometry = read_channels(images)
        stored = self.masks.stored(name)
        read = [(mask, replace(self.masks.reader.geometry(mask), shape=values.shape)) for mask, values in stored]
        check_grids([(path, replace(geometry, shape=image.shape[1:])), *read])
        return image, geometry, stored

    def _check_pairs(self) -> None:
        missing = unlabelled(self.listing) or ([] if self.labelled else sorted(self.listing.cases))
        if not self.masks.names and not self.masks.root.exists():
            raise DataError(
                f"{self.masks.root}: there is no such folder; masks are expected there. {no_masks(self.listing)}"
            )
        if missing or not self.labelled:
            way_out = f"Put a mask of the same name where the others are ({self.masks.root}), or remove the images."
            raise DataError(
                f"{len(missing)} of {len(self.listing.cases)} images have no mask: {some(missing)}. "
                f"{way_out if self.masks.names else no_masks(self.listing)}"
            )
        if incomplete := missing_structures(self.masks.incomplete(self.labelled)):
            raise DataError(f"{self.masks.root}: structures are missing: {some(incomplete)}. {COMPLETED}")


@dataclass(frozen=True)
class Volume:
    """A volume on its native grid, with its masks."""

    image: Float[np.ndarray, "c i j k"]
    masks: Stored
    slicing: Slicing
    intensity: Float[np.ndarray, "c 2"]


class VolumeSource(ListedSource):
    """Slices of volumes: each is a case of its own, normalised with the numbers of its volume."""

    def __init__(
        self,
        listing: Listing,
        config: DataConfig,
        *,
        before: Before | None = None,
        track: Track = no_progress,
    ) -> None:
        """Look through the files, and at every mask for the slices that hold a structure."""
        super().__init__(listing, config, before=before, track=track)
        self.plane, self.neighbours = self.scan.plane or "axial", config.neighbours
        slices = {name: Slicing(grid, self.plane).names(name) for name, grid in self.scan.grids.items()}
        self._keys = {item: (name, index) for name, items in slices.items() for index, item in enumerate(items)}
        held = [slices[name][index] for name, case in self.scan.cases.items() for index in case.foreground]
        self.info: DataInfo = replace(self.info, plane=self.plane, slices=slices, foreground=frozenset(held))

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
        return replace(case, mask=mask, ignored=ignored)

    @functools.lru_cache(maxsize=1)  # noqa: B019  (slices are asked for volume by volume; the source lives as long)
    def volume(self, name: str) -> Volume:
        """Read a whole volume."""
        image, geometry, stored = self.read(name)
        slicing = Slicing(geometry, self.plane)
        return Volume(image, stored, slicing, intensity_of(slicing.turned(image)))
