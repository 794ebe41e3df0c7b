"""Mask files by case: one each, or one per rater or structure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from medsegdiff.errors import DataError, GeometryError, size, some
from medsegdiff.io.image import read_geometry, read_mask
from medsegdiff.labels import TWO_VALUES, Labels, labels_of, strange_values
from medsegdiff.types import Geometry, Task

Kind = Literal["flat", "raters", "structures"]
"""One file per case, or several: of raters who drew the same, or of structures that may overlap."""


class MaskReader:
    """Reads mask files: pictures and volumes. A layout may read others; what stands for a file is a path to it."""

    def values(self, path: Path) -> UInt8[np.ndarray, " *s"]:
        """Read a mask."""
        return read_mask(path)

    def geometry(self, path: Path) -> Geometry:
        """Find out where a mask lies."""
        return read_geometry(path)[0]


class Masks:
    """The mask files of a data set, and how to read them."""

    def __init__(
        self,
        files: Mapping[str, Mapping[str, Path]],
        *,
        kind: Kind,
        where: Path,
        declared: Labels | None = None,
        reader: MaskReader | None = None,
    ) -> None:
        """Take files as they were found."""
        self.reader = reader or MaskReader()
        self.kind: Kind = kind
        self.root, self.declared = where, declared
        self._files = {folder: dict(of_cases) for folder, of_cases in files.items()}
        self.folders = tuple(self._files)
        self.names = sorted({name for of_cases in self._files.values() for name in of_cases})

    def ordered(self, folders: Sequence[str]) -> Masks:
        """Put structures into another order."""
        files = {folder: self._files[folder] for folder in folders}
        return Masks(files, kind=self.kind, where=self.root, declared=self.declared, reader=self.reader)

    def has(self, name: str) -> bool:
        """Tell whether there is any mask of a case."""
        return any(name in of_cases for of_cases in self._files.values())

    def files(self, name: str) -> list[Path]:
        """List the files of a case."""
        return list(self.by_folder(name).values())

    def by_folder(self, name: str) -> dict[str, Path]:
        """List the files of a case by rater or structure."""
        return {folder: of_cases[name] for folder, of_cases in self._files.items() if name in of_cases}

    def incomplete(self, names: Iterable[str]) -> list[str]:
        """List the cases that lack a structure. A rater may be missing, a structure may not."""
        if self.kind != "structures":
            return []
        lacking = {name: [f for f in self.folders if name not in self._files[f]] for name in sorted(names)}
        return [f"{name} (no {', '.join(folders)})" for name, folders in lacking.items() if folders]

    def values(self, name: str) -> set[int]:
        """List the values of a case's masks."""
        return {int(value) for path in self.files(name) for value in np.unique(self.reader.values(path))}

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
            raise DataError(strange_values(sorted(set(values)), self.root, "set data.task=regions"))
        return Labels("regions", self.folders)

    def _as_declared(self, declared: Labels, task: Task | None, classes: tuple[str, ...] | None) -> Labels:
        if task not in (None, declared.task) or classes not in (None, declared.classes):
            raise DataError(
                f"{self.root}: the data set tells of the classes {some(declared.classes, most=20)} ({declared.task}). "
                "Leave data.task and data.classes out, or correct what tells of them."
            )
        return declared

    def stored(self, name: str) -> list[tuple[Path, UInt8[np.ndarray, " *s"]]]:
        """Read the masks of a case as they are stored."""
        found = [(path, self.reader.values(path)) for path in self.files(name)]
        if len({values.shape for _, values in found}) > 1:
            sizes = ", ".join(f"{path} is {size(values.shape)}" for path, values in found)
            raise GeometryError(f"The masks of '{name}' differ in size: {sizes}. They must lie on the same grid.")
        return found

    def coded(
        self, stored: Sequence[tuple[Path, UInt8[np.ndarray, " *s"]]], labels: Labels
    ) -> UInt8[np.ndarray, "r k *s"]:
        """Turn stored values, or a part of each, into channels."""
        masks = [labels.read(values, path) for path, values in stored]
        return np.concatenate(masks)[None] if self.kind == "structures" else np.stack(masks)

    def channel(
        self, stored: Sequence[tuple[Path, UInt8[np.ndarray, " *s"]]], labels: Labels, index: int
    ) -> UInt8[np.ndarray, "r *s"]:
        """Turn stored values into one channel, where all at once would not fit into memory."""
        if self.kind == "structures":
            path, values = stored[index]
            return labels.read(values, path)[:1]
        return np.stack([labels.read_channel(values, path, index) for path, values in stored])

    def ignored(
        self, stored: Sequence[tuple[Path, UInt8[np.ndarray, " *s"]]], labels: Labels
    ) -> UInt8[np.ndarray, "r *s"] | None:
        """Find the pixels that nobody labelled."""
        if labels.ignore is None:
            return None
        found = np.stack([labels.ignored(values) for _, values in stored]).astype(np.uint8)
        return found.max(axis=0, keepdims=True) if self.kind == "structures" else found

    def read(self, name: str, labels: Labels) -> UInt8[np.ndarray, "r k *s"]:
        """Read the masks of a case."""
        return self.coded(self.stored(name), labels)
