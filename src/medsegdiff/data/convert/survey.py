"""What is to be converted: a first look at every file, and masks as channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8

from medsegdiff.config.data import DataConfig
from medsegdiff.data.convert.files import CaseOutput
from medsegdiff.data.dataset import Track
from medsegdiff.data.listed import check_channels_alike, check_grids, unlabelled
from medsegdiff.data.listing import CaseFiles, Listing
from medsegdiff.errors import DataError, MedSegDiffError
from medsegdiff.io.image import count_channels
from medsegdiff.labels import Labels
from medsegdiff.types import Geometry

MOST_REGIONS = 62
"""Regions whose combinations fit into a 64-bit number."""


@dataclass(frozen=True)
class Survey:
    """A data set whose files were looked through once."""

    listing: Listing
    config: DataConfig
    cases: Sequence[CaseFiles]
    """Those that can be read."""
    broken: dict[str, str]
    """Case → what is wrong."""
    channels: int
    """Most image channels of a case; of volumes, those of each."""
    labels: Labels | None
    """What mask values mean; ``None`` where there are no masks."""
    values: frozenset[int]
    """All values of all masks."""
    combinations: frozenset[int]
    """Of structures: which of them occur in one pixel, a bit for each."""
    volumes: bool
    geometries: Sequence[Geometry]
    """By case."""
    only_foreground: bool = False

    @property
    def ignores(self) -> bool:
        """Whether there are pixels that nobody labelled."""
        return self.labels is not None and self.labels.ignore in self.values

    def masks_of(self, case: CaseFiles) -> tuple[UInt8[np.ndarray, "r k *s"], UInt8[np.ndarray, "r *s"] | None] | None:
        """Read the masks of a case."""
        if self.labels is None or not self.listing.masks.files(case.name):
            return None
        stored = self.listing.masks.stored(case.name)
        return self.listing.masks.coded(stored, self.labels), self.listing.masks.ignored(stored, self.labels)


@dataclass
class Target:
    """How a layout is written."""

    write: Callable[[CaseFiles, CaseOutput], list[str]]
    """Write a case; the names it has in the new layout are given."""
    finish: Callable[[Sequence[CaseFiles]], None] = lambda done: None
    """Write what describes them all."""
    group: Callable[[CaseFiles], str] = lambda case: ""
    """The group of a case that names none."""
    describes_parts: bool = False
    """Whether the layout itself puts cases into parts, so that ``split.csv`` has to say where the source does not."""
    notes: list[str] = field(default_factory=list)


def survey(listing: Listing, config: DataConfig, *, only_foreground: bool, track: Track) -> Survey:
    """Look at every case: whether it can be read, its grid, its channels, the values of its masks."""
    masks = listing.masks
    broken = dict.fromkeys(unlabelled(listing.cases, masks.names), "the image has no mask") if masks.names else {}
    lacking = masks.incomplete(set(masks.names) & set(listing.cases))
    broken |= {text.rpartition(" (no ")[0]: f"masks are missing: {text}" for text in lacking}
    values: set[int] = set()
    combinations: set[int] = set()
    grids, channels = {}, {}
    for name in track(sorted(set(listing.cases) - set(broken)), "Looking through the files"):
        case = listing.cases[name]
        try:
            geometry = check_grids(case, masks)
            count = count_channels(case.images)
            stored = [file for _, file in masks.stored(name)]
        except MedSegDiffError as error:
            broken[name] = str(error)
            continue
        grids[name], channels[case.images[0]] = geometry, count
        values |= {int(value) for file in stored for value in np.unique(file)}
        if masks.kind == "structures" and stored:
            nobody = masks.declared.ignore if masks.declared else None
            found = np.stack([(file > 0) & (file != (-1 if nobody is None else nobody)) for file in stored])
            combinations |= set(np.unique(combination(found)).tolist())
    if listing.volumes:
        check_channels_alike(channels)
    return Survey(
        listing,
        config,
        [listing.cases[name] for name in grids],
        broken,
        max(channels.values(), default=0),
        masks.labels(values, task=config.task, classes=config.classes) if values else None,
        frozenset(values),
        frozenset(combinations),
        listing.volumes,
        list(grids.values()),
        only_foreground,
    )


def combination(mask: np.ndarray) -> Integer[np.ndarray, " *s"]:
    """Tell which channels hold each pixel, as a number with a bit for each."""
    if len(mask) > MOST_REGIONS:
        raise DataError(f"There are {len(mask)} regions; at most {MOST_REGIONS} can be converted. Leave some out.")
    found = np.zeros(mask.shape[1:], np.int64)
    for bit, channel in enumerate(mask):
        found |= channel.astype(np.int64) << bit
    return found


def source_name(path: Path) -> str:
    """Name a data set after its folder or file."""
    return path.resolve().stem if path.is_file() else path.resolve().name
