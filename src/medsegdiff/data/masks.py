"""Folders of masks: one file per case, or one per rater or structure, and what their values mean."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from medsegdiff.errors import DataError, GeometryError, size, some
from medsegdiff.io.image import image_name, images_in, read_mask
from medsegdiff.types import Task

MASK_ENDINGS = ("_segmentation", "_mask", "_seg", "_labels", "_label", "_gt", "_manual1", "_manual")
"""What people append to an image's name to name its mask."""
RATER_WORDS = ("rater", "reader", "expert", "annotator", "observer", "grader")
MAX_CLASSES = 64
"""More class indices than these are taken for grey values."""
TWO_VALUES = ({0}, {1}, {255}, {0, 1}, {0, 255})
"""Values of a mask with one foreground."""

Kind = Literal["flat", "raters", "structures"]


@dataclass(frozen=True)
class MaskCoding:
    """What the values of mask files mean."""

    task: Task
    classes: tuple[str, ...]

    def channels(self, values: UInt8[np.ndarray, "*s"], path: Path) -> UInt8[np.ndarray, "k *s"]:
        """Turn the values of a file into 0 and 1 by channel.

        Args:
            values: As stored.
            path: Named in the error.

        Returns:
            One channel, or one per class.

        Raises:
            DataError: If a value is not a class.
        """
        if self.task != "exclusive":
            return (values > 0).astype(np.uint8)[None]
        if int(values.max()) >= len(self.classes):
            raise DataError(
                f"{path}: mask value {values.max()} is out of range; allowed are 0 … {len(self.classes) - 1} "
                f"({', '.join(self.classes)}). Correct the mask, or name all classes with data.classes."
            )
        classes = np.arange(len(self.classes)).reshape(-1, *(1,) * values.ndim)
        return (values == classes).astype(np.uint8)


class MaskFolder:
    """Masks by case name: flat, or in sub-folders that stand for raters or for structures."""

    def __init__(
        self,
        root: Path,
        *,
        kind: Literal["auto", "raters", "structures"] = "auto",
        names: Collection[str] = (),
    ) -> None:
        """Look through the folder.

        Args:
            root: The folder.
            kind: What sub-folders are; ``auto`` takes them for raters if their names say so.
            names: Cases that are known; a mask of exactly that name belongs to it.

        Raises:
            DataError: If there is no mask, or masks lie both here and in sub-folders.
        """
        if not root.is_dir():
            raise DataError(f"{root}: there is no such folder; masks are expected there.")
        folders = sorted(p for p in root.iterdir() if p.is_dir() and images_in(p))
        flat = images_in(root)
        if flat and folders:
            raise DataError(
                f"{root}: holds both pictures ({flat[0].name}, …) and folders of pictures "
                f"({some([p.name for p in folders])}). "
                "Masks lie either here or in one folder per rater or structure; move the others away."
            )
        if not flat and not folders:
            raise DataError(f"{root}: holds no masks. Expected PNG or TIFF files, or a folder per rater or structure.")
        self._files = {"": by_name(flat, names)} if flat else {f.name: by_name(images_in(f), names) for f in folders}
        self.root = root
        self.folders = tuple(self._files)
        self.kind: Kind = "flat" if flat else _kind_of(self.folders) if kind == "auto" else kind
        self.names = sorted({name for files in self._files.values() for name in files})

    def files(self, name: str) -> list[Path]:
        """List the files of a case.

        Args:
            name: The case.

        Returns:
            One path per rater or structure that has it.
        """
        return [files[name] for files in self._files.values() if name in files]

    def incomplete(self, names: Iterable[str]) -> list[str]:
        """List the cases that lack a structure. A rater may be missing, a structure may not.

        Args:
            names: Cases to look at.

        Returns:
            Names, with the structures that they lack.
        """
        if self.kind != "structures":
            return []
        lacking = {name: [f for f in self.folders if name not in self._files[f]] for name in sorted(names)}
        return [f"{name} (no {', '.join(folders)})" for name, folders in lacking.items() if folders]

    def values(self, name: str) -> set[int]:
        """List the values of a case's masks.

        Args:
            name: The case.

        Returns:
            Every value that occurs.
        """
        return {int(value) for path in self.files(name) for value in np.unique(read_mask(path))}

    def coding(
        self, values: Iterable[int], *, task: Task | None = None, classes: tuple[str, ...] | None = None
    ) -> MaskCoding:
        """Say what the values of these masks mean.

        Args:
            values: All values that occur.
            task: What the user says they are, if anything.
            classes: Names that the user gives, if any.

        Returns:
            The coding.

        Raises:
            DataError: If the values fit no coding.
        """
        if self.kind != "structures":
            return coding_of(sorted(set(values)), task=task, classes=classes, where=self.root)
        if task not in (None, "regions") or (classes is not None and set(classes) != set(self.folders)):
            raise DataError(
                f"{self.root}: its folders {some(self.folders)} are structures, which may overlap (task regions). "
                "Leave data.task and data.classes out; if the folders are raters, set data.mask_folders=raters."
            )
        if task is None and set(values) not in TWO_VALUES:
            raise DataError(_strange(sorted(set(values)), self.root, "set data.task=regions"))
        return MaskCoding("regions", self.folders)

    def stored(self, name: str) -> list[tuple[Path, UInt8[np.ndarray, " *s"]]]:
        """Read the masks of a case as they are stored.

        Args:
            name: The case.

        Returns:
            File and values, one per rater or structure.

        Raises:
            GeometryError: If the masks of a case differ in size.
        """
        found = [(path, read_mask(path)) for path in self.files(name)]
        if len({values.shape for _, values in found}) > 1:
            sizes = ", ".join(f"{path} is {size(values.shape)}" for path, values in found)
            raise GeometryError(f"The masks of '{name}' differ in size: {sizes}. They must lie on the same grid.")
        return found

    def coded(
        self, stored: Sequence[tuple[Path, UInt8[np.ndarray, " *s"]]], coding: MaskCoding
    ) -> UInt8[np.ndarray, "r k *s"]:
        """Turn stored values, or a part of each, into channels.

        Args:
            stored: From `stored`.
            coding: What the values mean.

        Returns:
            0 and 1 by rater and channel; structures are channels of one rater.
        """
        masks = [coding.channels(values, path) for path, values in stored]
        return np.concatenate(masks)[None] if self.kind == "structures" else np.stack(masks)

    def read(self, name: str, coding: MaskCoding) -> UInt8[np.ndarray, "r k *s"]:
        """Read the masks of a case.

        Args:
            name: The case.
            coding: What the values mean.

        Returns:
            0 and 1 by rater and channel; structures are channels of one rater.
        """
        return self.coded(self.stored(name), coding)


def coding_of(values: list[int], *, task: Task | None, classes: tuple[str, ...] | None, where: Path) -> MaskCoding:
    """Find out what mask values mean: 0/1, 0/255 or class indices.

    Args:
        values: All values that occur, rising.
        task: What the user says they are, if anything.
        classes: Names that the user gives, if any.
        where: Named in the error.

    Returns:
        The coding.

    Raises:
        DataError: If they are none of these, or there are more than classes.
    """
    two = set(values) in TWO_VALUES and (classes is None or len(classes) <= 2)
    if task == "regions":
        raise DataError(f"{where}: regions that may overlap need a folder per structure: masks/NAME/CASE.png.")
    if task == "binary" or (task is None and two):
        return MaskCoding("binary", classes[-1:] if classes else ("foreground",))
    if classes is not None and values and values[-1] >= len(classes):
        raise DataError(
            f"{where}: mask value {values[-1]} is out of range; data.classes names {len(classes)} "
            f"(0 … {len(classes) - 1}): {', '.join(classes)}. Name all classes, the background first."
        )
    if classes is not None:
        return MaskCoding("exclusive", classes)
    if values and values[-1] < MAX_CLASSES and (1 in values or task == "exclusive"):
        return MaskCoding("exclusive", ("background", *(f"class_{i}" for i in range(1, values[-1] + 1))))
    raise DataError(_strange(values, where, "set data.task=binary; if these are class indices, set data.classes"))


def _strange(values: list[int], where: Path, way_out: str) -> str:
    return (
        f"{where}: mask values are {some([str(v) for v in values], most=8) or 'none'}. Allowed are 0/1, 0/255 or class "
        "indices from 0. Grey edges come from JPEG or resizing: save masks as PNG. If every value above 0 is "
        f"foreground, {way_out}."
    )


def by_name(paths: Iterable[Path], names: Collection[str] = ()) -> dict[str, Path]:
    """Index files by case name: the stem, without what marks it as a mask.

    Args:
        paths: Files.
        names: Cases that are known; a stem that is one of them is kept as it is.

    Returns:
        Name → path.

    Raises:
        DataError: If two files have the same name.
    """
    found: dict[str, Path] = {}
    for path in paths:
        stem = image_name(path)
        name = stem if stem in names else case_name(stem)
        if name in found:
            raise DataError(f"{found[name]} and {path} are both named '{name}'. Keep one of them.")
        found[name] = path
    return found


def case_name(stem: str) -> str:
    """Drop the ending that marks a file as a mask: ``a_Segmentation`` → ``a``.

    Args:
        stem: Name of a file without its suffix.

    Returns:
        Name of the case.
    """
    for ending in MASK_ENDINGS:
        if stem.lower().endswith(ending) and len(stem) > len(ending):
            return stem[: -len(ending)]
    return stem


def _kind_of(folders: Iterable[str]) -> Kind:
    return "raters" if all(name.lower().startswith(RATER_WORDS) for name in folders) else "structures"
