"""Cases and structures by name: which of those that results tell of are those of the references."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from pathlib import Path
from typing import TypeVar

from medsegdiff.data.mask_folder import without_mark
from medsegdiff.data.split import resolve
from medsegdiff.errors import DataError, some
from medsegdiff.inference.folder import SegmentationFolder
from medsegdiff.io.names import spelt_alike
from medsegdiff.labels import Labels

NO_NAME = re.compile(r"foreground|((class|label)[ _]?)?\d+", re.IGNORECASE)
"""What structures are called that nobody has named."""
Told = TypeVar("Told")


def by_case(told: Mapping[str, Told], known: Set[str]) -> dict[str, Told]:
    """Hold what is told of images against the cases ``known``: a bare folder of masks calls ``x_mask`` ``x``."""
    named = {resolve(name, known): of for name, of in told.items()}
    bare = {name: without_mark(name) for name in named if name not in known and without_mark(name) in known}
    return {bare[name]: named[name] for name in bare} | {name: of for name, of in named.items() if name not in bare}


def labels_made(folder: Path) -> Labels | None:
    """Look up what the model calls that made predictions; nothing of one structure's folder, for that was chosen."""
    made = SegmentationFolder.around(folder)
    record = made.read()
    if record is None:
        return None
    inside = folder.resolve().relative_to(made.root.resolve()).parts
    return None if inside[-2:-1] in (("masks",), ("probability",)) else record.labels


def names_made(labels: Labels, made: Labels, *, where: Path) -> Mapping[str, str]:
    """Find the model's name of each structure, however it is spelt; none where values have to say which is which.

    They do where a side has no names, or one structure, and where regions are made of the values of label maps.
    """
    alone = len(labels.structures) == len(made.structures) == 1
    if alone or (made.task == "regions" and labels.exclusive) or (labels.task == "regions" and labels.values):
        return {}
    found = spelt_alike(labels.structures, made.structures)
    if len(found) == len(labels.structures):
        return found
    if not (_has_names(labels) and _has_names(made)) or made.task == "regions":
        return {}
    raise DataError(
        f"{where}: the references hold the structures {some(labels.structures, most=20)}; the model that made the "
        f"predictions knows {some(made.structures, most=20)}. Score against references that name its structures as it "
        "does; to compare values, whatever their names, give the folder of their masks alone, without data.classes."
    )


def _has_names(labels: Labels) -> bool:
    return not all(NO_NAME.fullmatch(name) for name in labels.structures)
