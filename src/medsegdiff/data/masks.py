"""Mask files by case: one each, or one per rater or structure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from medsegdiff.data.mask_values import TWO_VALUES, labels_of, strange_values
from medsegdiff.errors import DataError, GeometryError, size, some
from medsegdiff.io.image import read_geometry, read_mask
from medsegdiff.io.listing import LeftOut
from medsegdiff.io.names import composed
from medsegdiff.labels import Labels
from medsegdiff.types import Geometry, Task


@dataclass(frozen=True)
class MaskRef:
    """One mask of a file that holds several."""

    file: Path
    item: str
    """Its name or number in the file; empty where the file lacks it."""

    def __str__(self) -> str:
        return f"{self.file}#{self.item}"


MaskFile = Path | MaskRef
Stored = Sequence[tuple[MaskFile, UInt8[np.ndarray, " *s"]]]
"""The masks of a case as they are stored."""
Kind = Literal["flat", "raters", "structures"]
"""One file per case, or several: of raters who drew the same, or of structures that may overlap."""


class MaskReader:
    """Reads mask files: pictures and volumes. A layout may read others, or parts of files."""

    def files(self, path: MaskFile) -> Sequence[Path]:
        """List the files that hold a mask."""
        return (whole(path),)

    @property
    def apart(self) -> bool:
        """Whether the instances of a mask lie in files of their own."""
        return False

    def parts(self, path: MaskFile) -> Iterator[UInt8[np.ndarray, " *s"]]:
        """Read the instances of a mask one by one, where they lie apart; else the whole."""
        yield self.values(path)

    def values(self, path: MaskFile) -> UInt8[np.ndarray, " *s"]:
        """Read a mask."""
        return read_mask(whole(path))

    def geometry(self, path: MaskFile) -> Geometry:
        """Find out where a mask lies."""
        return read_geometry(whole(path))[0]


@dataclass(frozen=True)
class ThresholdReader(MaskReader):
    """Reads grey levels of another reader as 0 and 1."""

    levels: MaskReader
    threshold: int
    """The lowest level that is foreground."""

    def files(self, path: MaskFile) -> Sequence[Path]:
        """List the files that hold a mask."""
        return self.levels.files(path)

    def values(self, path: MaskFile) -> UInt8[np.ndarray, " *s"]:
        """Read a mask, 0 and 1."""
        return self._cut(self.levels.values(path))

    @property
    def apart(self) -> bool:
        """Whether the instances of a mask lie in files of their own."""
        return self.levels.apart

    def parts(self, path: MaskFile) -> Iterator[UInt8[np.ndarray, " *s"]]:
        """Read the instances of a mask one by one, 0 and 1."""
        yield from map(self._cut, self.levels.parts(path))

    def _cut(self, levels: UInt8[np.ndarray, " *s"]) -> UInt8[np.ndarray, " *s"]:
        return (levels >= self.threshold).astype(np.uint8)

    def geometry(self, path: MaskFile) -> Geometry:
        """Find out where a mask lies."""
        return self.levels.geometry(path)


def whole(path: MaskFile) -> Path:
    """Name the file that holds a mask."""
    return path.file if isinstance(path, MaskRef) else path


def part_of(path: MaskFile) -> tuple[Path, str]:
    """Take file and item apart, of a mask that is not alone in its file."""
    assert isinstance(path, MaskRef)
    return path.file, path.item


def count_values(stored: UInt8[np.ndarray, "*s"]) -> Int64[np.ndarray, " 256"]:
    """Count the pixels of each value, plane by plane: counted at once, they are brought to eight bytes each."""
    planes = np.moveaxis(stored, int(np.argmax(stored.strides)), 0)
    return sum((np.bincount(plane.ravel(), minlength=256) for plane in planes), np.zeros(256, np.int64))


class Masks:
    """The mask files of a data set, and how to read them."""

    def __init__(
        self,
        files: Mapping[str, Mapping[str, MaskFile]],
        *,
        kind: Kind,
        where: Path,
        declared: Labels | None = None,
        reader: MaskReader | None = None,
        left_out: Sequence[LeftOut] = (),
    ) -> None:
        """Take files as they were found, and what else is in their folders."""
        self.reader = reader or MaskReader()
        self.kind: Kind = kind
        self.root, self.declared, self.left_out = where, declared, tuple(left_out)
        self._files = {folder: _named(of_cases) for folder, of_cases in files.items()}
        self.folders = tuple(self._files)
        self.names = sorted({name for of_cases in self._files.values() for name in of_cases})

    def ordered(self, folders: Sequence[str]) -> Masks:
        """Put structures into another order."""
        files = {folder: self._files[folder] for folder in folders}
        return Masks(
            files,
            kind=self.kind,
            where=self.root,
            declared=self.declared,
            reader=self.reader,
            left_out=self.left_out,
        )

    def above(self, threshold: int | None) -> Masks:
        """Read these masks as grey levels, foreground from ``threshold`` on; ``None``: as labels, as they are."""
        if threshold is None:
            return self
        if self.declared is not None:
            raise DataError(
                f"{self.root}: the data set says what its mask values mean ({some(self.declared.classes, most=20)}). "
                "Leave data.mask_threshold out: it is for masks of grey levels."
            )
        reader = ThresholdReader(self.reader, threshold)
        return Masks(self._files, kind=self.kind, where=self.root, reader=reader, left_out=self.left_out)

    def has(self, name: str) -> bool:
        """Tell whether there is any mask of a case."""
        return any(name in of_cases for of_cases in self._files.values())

    def files(self, name: str) -> list[MaskFile]:
        """List the files of a case."""
        return list(self.by_folder(name).values())

    def by_folder(self, name: str) -> dict[str, MaskFile]:
        """List the files of a case by rater or structure."""
        return {folder: of_cases[name] for folder, of_cases in self._files.items() if name in of_cases}

    def incomplete(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Find the structures that cases lack. A rater may be missing, a structure may not."""
        if self.kind != "structures":
            return {}
        lacking = {name: [f for f in self.folders if name not in self._files[f]] for name in sorted(names)}
        return {name: folders for name, folders in lacking.items() if folders}

    def values(self, names: Iterable[str] | None = None) -> set[int]:
        """List the values of the masks of all cases, or of some."""
        files = (path for name in (self.names if names is None else names) for path in self.files(name))
        return {int(value) for path in files for value in np.unique(self.reader.values(path))}

    def structures(self, stored: UInt8[np.ndarray, " *s"]) -> Bool[np.ndarray, " *s"]:
        """Find the pixels of any structure, before it is known what values mean: above 0, and labelled."""
        nobody = self.declared.ignore if self.declared else None
        return stored > 0 if nobody is None else (stored > 0) & (stored != nobody)

    def labels(
        self, values: Iterable[int], *, task: Task | None = None, classes: tuple[str, ...] | None = None
    ) -> Labels:
        """Say what the values of these masks mean: as declared, else by what occurs."""
        if self.declared is not None:
            return self._as_declared(self.declared, task, classes)
        if self.kind != "structures":
            return labels_of(sorted(set(values)), task=task, classes=classes, where=self.root)
        if task not in (None, "regions") or (classes is not None and set(classes) != set(self.folders)):
            raise DataError(
                f"{self.root}: its folders {some(self.folders)} are structures, which may overlap (task regions). "
                "Leave data.task and data.classes out; if the folders are raters, set data.mask_folders=raters."
            )
        if task is None and set(values) not in TWO_VALUES:
            raise DataError(strange_values(sorted(set(values)), self.root, one_structure=True))
        return Labels("regions", self.folders)

    def _as_declared(self, declared: Labels, task: Task | None, classes: tuple[str, ...] | None) -> Labels:
        if task not in (None, declared.task) or classes not in (None, declared.classes):
            raise DataError(
                f"{self.root}: the data set tells of the classes {some(declared.classes, most=20)} ({declared.task}). "
                "Leave data.task and data.classes out, or correct what tells of them."
            )
        return declared

    def stored(self, name: str) -> Stored:
        """Read the masks of a case as they are stored."""
        found = [(path, self.reader.values(path)) for path in self.files(name)]
        if len({values.shape for _, values in found}) > 1:
            sizes = ", ".join(f"{path} is {size(values.shape)}" for path, values in found)
            raise GeometryError(f"The masks of '{name}' differ in size: {sizes}. They must lie on the same grid.")
        return found

    def coded(self, stored: Stored, labels: Labels) -> UInt8[np.ndarray, "r k *s"]:
        """Turn stored values, or a part of each, into channels."""
        masks = [labels.read(values, path) for path, values in stored]
        return np.concatenate(masks)[None] if self.kind == "structures" else np.stack(masks)

    def channel(self, stored: Stored, labels: Labels, index: int) -> UInt8[np.ndarray, "r *s"]:
        """Turn stored values into one channel, where all at once would not fit into memory."""
        if self.kind == "structures":
            path, values = stored[index]
            return labels.read(values, path)[:1]
        return np.stack([labels.read_channel(values, path, index) for path, values in stored])

    def ignored(self, stored: Stored, labels: Labels) -> UInt8[np.ndarray, "r *s"] | None:
        """Find the pixels that nobody labelled."""
        if labels.ignore is None:
            return None
        found = np.stack([labels.ignored(values) for _, values in stored]).astype(np.uint8)
        return found.max(axis=0, keepdims=True) if self.kind == "structures" else found

    def read(self, name: str, labels: Labels) -> UInt8[np.ndarray, "r k *s"]:
        """Read the masks of a case."""
        return self.coded(self.stored(name), labels)


def _named(files: Mapping[str, MaskFile]) -> dict[str, MaskFile]:
    """Write the names of cases as those of images are written."""
    found: dict[str, MaskFile] = {}
    for given, file in files.items():
        if (name := composed(given)) in found:
            raise DataError(f"{found[name]} and {file} are both named '{name}'. Keep one of them.")
        found[name] = file
    return found


COMPLETED = (
    "Save an empty mask for each, or (of DICOM files) name those that are meant in data.classes; if the sub-folders "
    "are raters, set data.mask_folders=raters."
)
"""What to do where structures are missing."""


def missing_structures(incomplete: Mapping[str, Sequence[str]]) -> list[str]:
    """Word what `Masks.incomplete` found."""
    return [f"{name} (no {', '.join(folders)})" for name, folders in incomplete.items()]
