"""What the releases of BraTS have in common: sequences, labels, regions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medsegdiff.data.coding import MaskCoding
from medsegdiff.data.listing import CaseFiles, Listing, expected, indexed
from medsegdiff.data.masks import Masks
from medsegdiff.data.split import assign
from medsegdiff.errors import DataError

CHANNELS = ("t1", "t1ce", "t2", "flair")
REGIONS = ("WT", "TC", "ET")
"""Whole tumour, tumour core, enhancing tumour: each holds the next."""
LABELS = ("background", "necrotic core", "oedema", "enhancing tumour")
LICENCE = "terms of the challenge, for which one registers at Synapse"
HOME = "https://www.synapse.org/brats"
Files = Mapping[str, Path]
"""Word for a sequence, or ``seg`` → file."""


@dataclass(frozen=True)
class Release:
    """How sequences and labels are called."""

    words: tuple[str, ...]
    """Of the sequences in file names, in the order of `CHANNELS`."""
    separator: str
    """Between the name of the case and the word."""
    enhancing: int
    """The label of enhancing tumour; 1 is the necrotic core and 2 the oedema in all years."""

    @property
    def regions(self) -> MaskCoding:
        """What the challenge scores."""
        return MaskCoding("regions", REGIONS, ((1, 2, self.enhancing), (1, self.enhancing), (self.enhancing,)))

    @property
    def labels(self) -> MaskCoding:
        """What was drawn."""
        return MaskCoding("exclusive", LABELS, ((0,), (1,), (2,), (self.enhancing,)))

    @property
    def region_values(self) -> tuple[int, ...]:
        """The label of what each region holds beyond the next."""
        return 2, 1, self.enhancing


UNTIL_2021 = Release(CHANNELS, "_", 4)
SINCE_2023 = Release(("t1n", "t1c", "t2w", "t2f"), "-", 3)


def unique(words: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """Index the files of a case."""
    files: dict[str, Path] = {}
    for word, path in words:
        if word in files:
            raise DataError(f"{path.parent}: expected one file for {word}; found {files[word].name} and {path.name}.")
        files[word] = path
    return files


def channels_of(files: Files, words: Sequence[str], *, folder: Path, pattern: str) -> tuple[Path, ...]:
    """Put the sequences of a case into order."""
    if missing := [word for word in words if word not in files]:
        raise expected(
            f"{pattern.replace('*', missing[0])}, for each case has the sequences {', '.join(words)}", folder
        )
    return tuple(files[word] for word in words)


def listed(root: Path, layout: str, found: Sequence[CaseFiles], *, labels: Files, release: Release) -> Listing:
    """Make a listing of cases with the three regions."""
    told = [replace(case, part="test") if labels and case.name not in labels else case for case in found]
    cases = assign(indexed(told, root), root / "split.csv")
    return Listing(
        root,
        layout,
        cases,
        Masks({"": labels}, kind="flat", where=root, declared=release.regions),
        channels=CHANNELS,
        modalities=("mr", "mr", "mr", "mr"),
        region_values=release.region_values,
        unlisted=tuple(case.name for case in told if case.name not in cases),
    )
