"""What a layout finds on disk: the files of each case, and what the data set tells of itself. Nothing is read here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from medsegdiff.config.data import DataConfig, Modality
from medsegdiff.data.masks import Masks
from medsegdiff.errors import DataError, some
from medsegdiff.io.image import is_volume


@dataclass(frozen=True)
class CaseFiles:
    """The image files of a case, and where it belongs."""

    name: str
    images: tuple[Path, ...]
    """Files whose channels follow each other: one, or one per channel."""
    part: str = ""
    """``train``, ``val`` or ``test``; empty where the data set does not say."""
    group: str = ""
    """Cases of one group (a patient, say) stay together; empty: each case by itself."""


@dataclass(frozen=True)
class Listing:
    """A data set on disk."""

    root: Path
    layout: str
    """The entry of `DATASETS` that found it."""
    cases: Mapping[str, CaseFiles]
    """By name. Cases with a part but without masks can be segmented, not trained on."""
    masks: Masks
    channels: tuple[str, ...] = ()
    """Names of the image channels, where they are told."""
    modalities: tuple[Modality, ...] = ()
    """Of the image channels, where they are told."""
    unlisted: tuple[str, ...] = ()
    """Images that the split of the data set does not name; they are not used."""
    remarks: tuple[str, ...] = field(default=())
    """What the data set is known for, and its user should know."""

    @property
    def volumes(self) -> bool:
        """Whether the images have three axes of space."""
        kinds = {is_volume(path): path for case in self.cases.values() for path in case.images}
        if len(kinds) > 1:
            raise DataError(
                f"{self.root}: holds volumes ({kinds[True]}) and pictures ({kinds[False]}). Keep them apart."
            )
        return True in kinds


@dataclass(frozen=True)
class Layout:
    """A way in which data sets lie on disk."""

    detect: Callable[[Path], bool]
    """Whether a folder or file looks like it, by names alone."""
    read: Callable[[Path, DataConfig], Listing]
    """List its cases; a `DataError` says what was expected and what was found."""

    def __call__(self, root: Path, config: DataConfig) -> Listing:
        """List the cases."""
        return self.read(root, config)


def expected(what: str, root: Path) -> DataError:
    """Word the error about a folder that does not hold what it should."""
    here = sorted(path.name + "/" * path.is_dir() for path in root.iterdir()) if root.is_dir() else []
    found = some(here, most=8) or ("nothing" if root.is_dir() else "no such folder")
    return DataError(f"{root}: expected {what}; found {found}.")


def indexed(cases: Iterable[CaseFiles], where: Path) -> dict[str, CaseFiles]:
    """Index cases by name."""
    found: dict[str, CaseFiles] = {}
    for case in cases:
        if case.name in found:
            raise DataError(
                f"{where}: {found[case.name].images[0]} and {case.images[0]} are both named '{case.name}'. "
                "Keep one of them."
            )
        found[case.name] = case
    return dict(sorted(found.items()))
