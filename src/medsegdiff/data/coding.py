"""What the values of mask files mean: channels of 0 and 1, and pixels that nobody labelled."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from medsegdiff.errors import DataError, some
from medsegdiff.types import Task

MAX_CLASSES = 64
"""More class indices than these are taken for grey values."""
TWO_VALUES = ({0}, {1}, {255}, {0, 1}, {0, 255})
"""Values of a mask with one foreground."""


@dataclass(frozen=True)
class MaskCoding:
    """What the values of mask files mean."""

    task: Task
    classes: tuple[str, ...]
    values: tuple[tuple[int, ...], ...] = ()
    """Stored values that make each channel, which may share them. Where none are given, a pixel is foreground if it
    is above 0, and of the class whose index it holds if the classes exclude each other."""
    ignore: int | None = None
    """The value of pixels that nobody labelled: they are neither trained on nor scored."""

    def channels(self, stored: UInt8[np.ndarray, "*s"], path: Path) -> UInt8[np.ndarray, "k *s"]:
        """Turn the values of a file into 0 and 1 by channel."""
        if self._split:
            self._check(stored, path)
        return self.table[:, stored]

    def channel(self, stored: UInt8[np.ndarray, "*s"], path: Path, index: int) -> UInt8[np.ndarray, "*s"]:
        """Turn the values of a file into 0 and 1 of one channel."""
        if self._split:
            self._check(stored, path)
        return self.table[index][stored]

    @property
    def label_values(self) -> tuple[int, ...]:
        """Values of the structures in label maps where they are not 1, 2, 3 …; of several that make one, the first."""
        first = tuple(values[0] for values in self.values[int(self.task == "exclusive") :])
        return first if self.task != "regions" and first != tuple(range(1, len(first) + 1)) else ()

    @property
    def table(self) -> UInt8[np.ndarray, "k 256"]:
        """What each stored value is in each channel of a file, 0 or 1; one channel where a file is a structure."""
        table = np.zeros((len(self.classes) if self._split else 1, 256), dtype=np.uint8)
        if not self._split:
            table[0, 1:] = 1
        for channel, values in enumerate(self._values):
            table[channel, list(values)] = 1
        if self.ignore is not None:
            table[:, self.ignore] = table[:, 0]
        return table

    @property
    def _split(self) -> bool:
        """Whether one file holds several channels, or says which of its values count."""
        return bool(self.values) or self.task == "exclusive"

    @property
    def _values(self) -> tuple[tuple[int, ...], ...]:
        if self.task == "exclusive" and not self.values:
            return tuple((index,) for index in range(len(self.classes)))
        return self.values

    def _check(self, stored: np.ndarray, path: Path) -> None:
        known = {0, *(value for values in self._values for value in values), *({self.ignore} - {None})}
        strange = np.setdiff1d(np.unique(stored), list(known))
        if len(strange) and not self.values:
            raise DataError(
                f"{path}: mask value {strange[-1]} is out of range; allowed are 0 … {len(self.classes) - 1} "
                f"({', '.join(self.classes)}). Correct the mask, or name all classes with data.classes."
            )
        if len(strange):
            told = ", ".join(
                f"{name} {'/'.join(map(str, v))}" for name, v in zip(self.classes, self._values, strict=True)
            )
            raise DataError(
                f"{path}: mask value {strange[-1]} has no meaning; the data set tells of {told}. "
                "Correct the mask, or what tells of the labels."
            )


def coding_of(values: list[int], *, task: Task | None, classes: tuple[str, ...] | None, where: Path) -> MaskCoding:
    """Find out what mask values mean: 0/1, 0/255 or class indices."""
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
    raise DataError(strange_values(values, where, "set data.task=binary; if these are class indices, set data.classes"))


def strange_values(values: Iterable[int], where: Path, way_out: str) -> str:
    """Word the error about values that fit no coding."""
    return (
        f"{where}: mask values are {some([str(v) for v in values], most=8) or 'none'}. Allowed are 0/1, 0/255 or class "
        "indices from 0. Grey edges come from JPEG or resizing: save masks as PNG. If every value above 0 is "
        f"foreground, {way_out}."
    )
