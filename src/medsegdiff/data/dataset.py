"""What a source of cases offers, and the registry of sources."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from medsegdiff.config.data import Modality, Plane
from medsegdiff.errors import DataError, nearest
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
    foreground: frozenset[str] = frozenset()
    """Slices with a structure: every other training sample is one of them, and validation takes no others."""

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
