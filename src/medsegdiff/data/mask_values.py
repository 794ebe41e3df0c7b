"""What mask values mean where the data set does not say, and what to do about those that mean nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from medsegdiff.errors import DataError, some
from medsegdiff.labels import Labels
from medsegdiff.types import Task

MAX_CLASSES = 64
"""More class indices than these are taken for grey values."""
FAR_APART = 32
"""Between mask values that are grey levels and no class indices."""
TWO_VALUES = ({0}, {1}, {255}, {0, 1}, {0, 255})
"""Values of a mask with one foreground."""


def labels_of(values: list[int], *, task: Task | None, classes: tuple[str, ...] | None, where: Path) -> Labels:
    """Find out what mask values mean, where the data set does not say: 0/1, 0/255 or class indices.

    Args:
        values: All that occur, sorted.
        task: As asked; ``None`` goes by the values.
        classes: As asked; ``None`` makes names.
        where: The folder, for errors.

    Returns:
        The label space.

    Raises:
        DataError: If they are neither, or do not fit what was asked.
    """
    two = set(values) in TWO_VALUES and (classes is None or len(classes) <= 2)
    if task == "regions":
        raise DataError(f"{where}: regions that may overlap need a folder per structure: masks/NAME/CASE.png.")
    if task == "binary" or (task is None and two):
        return Labels("binary", classes[-1:] if classes else ("foreground",))
    if classes is not None and values and values[-1] >= len(classes):
        if _classes_in_grey(values):
            raise DataError(strange_values(values, where))
        raise DataError(
            f"{where}: mask value {values[-1]} is out of range; data.classes names {len(classes)} "
            f"(0 … {len(classes) - 1}): {', '.join(classes)}. Name all classes, the background first."
        )
    if classes is not None:
        return Labels("exclusive", classes)
    if values and values[-1] < MAX_CLASSES and (1 in values or task == "exclusive"):
        return _occurring([value for value in values if value])
    raise DataError(strange_values(values, where, "; if these are class indices, set data.classes"))


def _occurring(values: list[int]) -> Labels:
    """Make a class of each value; one that is nowhere would be scored as perfect, for nothing agrees with nothing."""
    classes = ("background", *(f"class_{value}" for value in values))
    counted = values == list(range(1, len(classes)))
    return Labels("exclusive", classes, values=() if counted else ((0,), *((value,) for value in values)))


def strange_values(values: Iterable[int], where: Path, other_way: str = "", *, one_structure: bool = False) -> str:
    """Word the error about values that fit no coding, of classes or of files that each hold ``one_structure``."""
    found = list(values)
    advice = (not one_structure and _classes_in_grey(found)) or _threshold_for(found) + other_way
    allowed = "0/1 or 0/255 in the folder of each structure" if one_structure else "0/1, 0/255 or class indices from 0"
    return (
        f"{where}: mask values are {some([str(v) for v in found], most=8) or 'none'}. Allowed are {allowed}. {advice}."
    )


def _classes_in_grey(values: Sequence[int]) -> str:
    """Say what to do about a few sorted values as far apart as nobody counts; empty where there are others."""
    apart = all(after - before >= FAR_APART for before, after in pairwise(values))
    if not (apart and len(values) in range(3, 6)):
        return ""
    advice = (
        "These look like classes drawn in grey values: save them as 0, 1, 2 …, with 0 for the background; if they are "
        "of one structure, data.mask_threshold says from which level on"
    )
    if set(values) == {0, 128, 255}:
        advice += ". Masks of REFUGE, whose cup is 0, are read in its own folders with data.layout=refuge2"
    return advice


def _threshold_for(values: Sequence[int]) -> str:
    """Say which threshold may be meant."""
    if set(values) <= {0, 1, 255}:
        return "Some files hold 0/1 and others 0/255, perhaps: set data.mask_threshold=1 if all above 0 is foreground"
    lost = "; with 128, masks of 0/1 would be empty" if 1 in values else ""
    return (
        "Grey edges come from JPEG or resizing: set data.mask_threshold=128 if foreground is what is at least half "
        f"white (1: all that is not black{lost})"
    )
