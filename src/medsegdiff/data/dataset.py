"""What a source of cases offers, and the registry of sources."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from medsegdiff.config import DataConfig
from medsegdiff.errors import DataError, nearest
from medsegdiff.registry import Registry
from medsegdiff.types import Case, Task

Item = TypeVar("Item")

SPLITS = ("train", "val", "test")


@runtime_checkable
class Track(Protocol):
    """Watches work go by, to show progress."""

    def __call__(self, items: Sequence[Item], description: str) -> Iterable[Item]:
        """Pass items on.

        Args:
            items: What is worked on.
            description: In a few words, what is done.

        Returns:
            The same items.
        """
        ...


def in_silence(items: Sequence[Item], description: str) -> Iterable[Item]:
    """Show no progress.

    Args:
        items: What is worked on.
        description: Not used.

    Returns:
        The same items.
    """
    return items


@dataclass(frozen=True)
class DataInfo:
    """What a data set tells of itself."""

    channels: int
    """Image channels."""
    task: Task
    """How the mask channels relate."""
    classes: tuple[str, ...]
    """Names of the mask channels; for ``exclusive`` the first is the background."""
    raters: tuple[str, ...]
    """Who drew the masks; one name where there is one mask per image."""
    split: dict[str, str]
    """Name of each case → ``train``, ``val`` or ``test``."""
    slices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Volume → its slices, each of which is loaded as a case of its own; empty for pictures."""
    plane: str = ""
    """How volumes are cut: all of them alike; empty for pictures."""
    foreground: frozenset[str] = frozenset()
    """Slices with a structure: every other training sample is one of them, and validation takes no others."""

    def names(self, split: str) -> list[str]:
        """List the cases of a part.

        Args:
            split: ``train``, ``val``, ``test`` or ``all``.

        Returns:
            Their names, sorted.

        Raises:
            DataError: If the part is unknown or empty.
        """
        if split not in (*SPLITS, "all"):
            raise DataError(f"No split '{split}'. Known: {', '.join(SPLITS)}, all.{nearest(split, SPLITS)}")
        found = sorted(name for name, part in self.split.items() if split in (part, "all"))
        if not found:
            raise DataError(f"The split '{split}' holds no case. Change split.csv, or the data.*_fraction settings.")
        return found

    def items(self, split: str) -> list[str]:
        """List what is loaded of a part: the cases, or the slices of volumes.

        Args:
            split: As in `names`.

        Returns:
            Names for `DataSource.load`.
        """
        return [item for name in self.names(split) for item in self.slices.get(name, (name,))]


@runtime_checkable
class DataSource(Protocol):
    """A data set: what it is, and its cases by name."""

    info: DataInfo

    def load(self, name: str) -> Case:
        """Read a case.

        Args:
            name: One of ``info.items("all")``.

        Returns:
            Image, masks of all raters, geometry.
        """
        ...


DATASETS: Registry[Callable[..., DataSource]] = Registry("data set")


def open_source(where: str | Path, config: DataConfig, *, track: Track = in_silence) -> DataSource:
    """Open a folder of images and masks, or a registered data set by its name.

    Args:
        where: A folder, or a name such as ``phantom``.
        config: How to read it.
        track: Shows progress while files are looked through.

    Returns:
        The source.

    Raises:
        DataError: If it is neither.
    """
    if Path(where).is_dir():
        return DATASETS["folder"].factory(Path(where), config, track=track)
    if str(where) in DATASETS and str(where) != "folder":
        return DATASETS[str(where)].factory(config)
    known = [entry.name for entry in DATASETS if entry.name != "folder"]
    raise DataError(
        f"{where}: there is no such folder, and no built-in data set of that name. "
        f"Give a folder with images/ and masks/, or one of: {', '.join(known)}.{nearest(str(where), known)}"
    )
