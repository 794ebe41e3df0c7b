"""What a source of cases offers, what a layout finds on disk, and the registry of both. Nothing is read here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from medsegdiff.config.data import DataConfig, Modality, Plane
from medsegdiff.data.masks import Masks
from medsegdiff.errors import DataError, nearest, some
from medsegdiff.io.image import is_volume
from medsegdiff.io.listing import LeftOut
from medsegdiff.io.names import case_name
from medsegdiff.labels import Labels
from medsegdiff.registry import Registry
from medsegdiff.types import Case

Item = TypeVar("Item")

SPLITS = ("train", "val", "test")


@runtime_checkable
class Track(Protocol):
    """Watches work go by, to show progress."""

    def __call__(self, items: Sequence[Item], description: str) -> Iterable[Item]:
        """Pass items on."""
        ...


def no_progress(items: Sequence[Item], description: str) -> Iterable[Item]:
    """Show no progress."""
    return items


@dataclass(frozen=True)
class DataInfo:
    """What a data set tells of itself."""

    channels: int
    """Image channels."""
    labels: Labels
    """What its masks hold."""
    raters: tuple[str, ...]
    """Who drew the masks; one name where there is one mask per image."""
    split: dict[str, str]
    """Name of each case → ``train``, ``val`` or ``test``."""
    slices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Volume → its slices, each of which is loaded as a case of its own; empty for pictures."""
    plane: Plane | Literal[""] = ""
    """How volumes are cut: all of them alike; empty for pictures."""
    layout: str = ""
    """The entry of `DATASETS` that lists its files; empty for what is made on the fly."""
    modalities: tuple[Modality, ...] = ()
    """Of the image channels, where the data set tells."""
    channel_files: int = 1
    """Files per image, one per channel."""
    passed_over: tuple[str, ...] = ()
    """What of its files is not used and why, in sentences."""
    understood: tuple[str, ...] = ()
    """How files were understood, where names alone tell."""
    foreground: frozenset[str] = frozenset()
    """Slices with a structure: every other training sample is one of them, and validation takes no others."""
    groups: Mapping[str, str] = field(default_factory=dict)
    """Case → its group (a patient, say), where the data set tells."""

    def names(self, split: str) -> list[str]:
        """List the cases of a part."""
        if split not in (*SPLITS, "all"):
            raise DataError(f"No split '{split}'. Known: {', '.join(SPLITS)}, all.{nearest(split, SPLITS)}")
        found = sorted(name for name, part in self.split.items() if split in (part, "all"))
        if not found:
            raise DataError(f"The split '{split}' holds no case. Change split.csv, or the data.*_fraction settings.")
        return found

    def items(self, split: str) -> list[str]:
        """List what is loaded of a part: the cases, or the slices of volumes."""
        return [item for name in self.names(split) for item in self.slices.get(name, (name,))]


@runtime_checkable
class DataSource(Protocol):
    """A data set: what it is, and its cases by name."""

    info: DataInfo

    def load(self, name: str) -> Case:
        """Read a case."""
        ...


DATASETS: Registry[Callable[..., Any], dict[str, Any]] = Registry("data set", dict)
"""Layouts and benchmarks, which list what is on disk (`Layout`), and sources that make their cases.

The fact ``kind`` tells them apart: ``layout``, ``benchmark`` or ``generated``.
"""
for module, names in {
    "benchmarks.amos2022": ("amos2022", "amos2022-mr"),
    "benchmarks.brats": ("brats", "brats-labels", "brats-slices"),
    "benchmarks.btcv": ("btcv", "btcv-12"),
    "benchmarks.ddti": ("ddti",),
    "benchmarks.refuge2": ("refuge2",),
    "benchmarks.drishti": ("drishti",),
    "benchmarks.isic": ("isic2016", "isic2017", "isic2018"),
    "benchmarks.lidc": ("lidc",),
    "benchmarks.tn3k": ("tn3k", "tnmix"),
    "layouts.msd": ("msd",),
    "layouts.nnunet": ("nnunet",),
    "layouts.manifest": ("manifest",),
    "layouts.tree": ("tree",),
    "layouts.folder": ("folder",),
    "phantom": ("phantom",),
}.items():
    DATASETS.expect(f"medsegdiff.data.{module}", *names)


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

    def __post_init__(self) -> None:
        """Give the case its name, whoever told it."""
        object.__setattr__(self, "name", case_name(self.name, where=self.images[0] if self.images else "The data set"))


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
    left_out: tuple[LeftOut, ...] = ()
    """What else is in the folders of its images."""
    remarks: tuple[str, ...] = field(default=())
    """What the data set is known for, and its user should know."""
    understood: tuple[str, ...] = ()
    """How its files were understood, where names alone tell, for the user to see whether it is true."""
    doubts: tuple[str, ...] = ()
    """Why its masks can't be told, where names allow several readings; its images can be segmented."""

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
