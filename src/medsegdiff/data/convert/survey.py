"""What is to be converted: a first look at every file, and masks as channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from medsegdiff.config.data import DataConfig
from medsegdiff.data.convert.files import CaseOutput
from medsegdiff.data.convert.labels import combination
from medsegdiff.data.dataset import Track
from medsegdiff.data.listing import CaseFiles, Listing
from medsegdiff.data.masks import Stored, missing_structures
from medsegdiff.data.scan import Scan, check_channels_alike, scan, unlabelled
from medsegdiff.labels import Labels


@dataclass(frozen=True)
class Survey:
    """A data set whose files were looked through once."""

    scan: Scan
    config: DataConfig
    broken: dict[str, str]
    """Case → what is wrong."""
    labels: Labels | None
    """What mask values mean; ``None`` where there are no masks."""
    combinations: frozenset[int]
    """Of structures: which of them occur in one pixel, a bit for each."""
    only_foreground: bool = False

    @property
    def listing(self) -> Listing:
        """The files."""
        return self.scan.listing

    @property
    def cases(self) -> list[CaseFiles]:
        """Those that can be read."""
        return [self.listing.cases[name] for name in self.scan.sound]

    @property
    def channels(self) -> int:
        """Most image channels of a case; of volumes, those of each."""
        return self.scan.channels

    @property
    def volumes(self) -> bool:
        """Whether the images have three axes of space."""
        return self.listing.volumes

    @property
    def ignores(self) -> bool:
        """Whether there are pixels that nobody labelled."""
        return self.labels is not None and self.labels.ignore in self.scan.values

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
    broken = dict.fromkeys(unlabelled(listing), "the image has no mask") if masks.names else {}
    lacking = masks.incomplete(set(masks.names) & set(listing.cases))
    said = missing_structures(lacking)
    broken |= {name: f"masks are missing: {text}" for name, text in zip(lacking, said, strict=True)}
    combinations: set[int] = set()

    def combine(case: CaseFiles, stored: Stored) -> None:
        if masks.kind == "structures" and stored:
            held = np.stack([masks.structures(values) for _, values in stored])
            combinations.update(np.unique(combination(held)).tolist())

    found = scan(listing, config, set(listing.cases) - set(broken), track=track, also=combine)
    broken |= {name: str(problem) for name, problem in found.problems.items()}
    if listing.volumes:
        check_channels_alike(found)
    labels = found.labels(config) if found.values else None
    return Survey(found, config, broken, labels, frozenset(combinations), only_foreground)


def source_name(path: Path) -> str:
    """Name a data set after its folder or file."""
    return path.resolve().stem if path.is_file() else path.resolve().name
