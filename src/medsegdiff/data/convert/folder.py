"""Writing plain folders: ``images/``, ``masks/[rater or structure/]`` and ``split.csv``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from medsegdiff.data.convert.files import (
    PICTURE,
    VOLUME,
    CaseOutput,
    Survey,
    Target,
    copy,
    ending_of,
    safe,
    write_picture,
)
from medsegdiff.data.convert.nnunet import write_volume
from medsegdiff.data.dataset import CaseFiles
from medsegdiff.data.layouts.folder import RATER_WORDS
from medsegdiff.data.masks import MaskReader, whole
from medsegdiff.errors import DataError
from medsegdiff.io.image import read_channels, write_labels, write_mask
from medsegdiff.types import Geometry


@dataclass(frozen=True)
class Layer:
    """A mask of a case, as a plain folder holds it."""

    folder: str
    """``masks``, or below it."""
    values: UInt8[np.ndarray, " *s"]
    indices: bool
    """Whether the values are class indices; 0 and 1 of one structure otherwise."""

    def write(self, output: CaseOutput, name: str, geometry: Geometry) -> None:
        """Write it."""
        path = output.path(self.folder, name + (PICTURE if geometry.affine is None else VOLUME))
        (write_labels if self.indices else write_mask)(path.parent, name, self.values, geometry)


def to_folder(found: Survey, out: Path) -> Target:
    """Write a file per image, and masks as they are, or of what ``dataset.json`` told a file per region."""
    check_kept(found)
    masks = found.listing.masks
    copied = masks.declared is None and type(masks.reader) is MaskReader

    def write(case: CaseFiles, output: CaseOutput) -> list[str]:
        name = safe(case.name)
        _write_image(case, output, name, volumes=found.volumes)
        if copied:
            for rater, mask in masks.by_folder(case.name).items():
                path = whole(mask)
                copy(path, output.path(_below_masks(found, rater), f"{name}{ending_of(path)}"))
            return [name]
        geometry = found.scan.grids[case.name]
        for layer in layers_of(found, case):
            layer.write(output, name, geometry)
        return [name]

    return Target(write, notes=notes_on_classes(found))


def check_kept(found: Survey) -> None:
    """Refuse what a plain folder has no way to say."""
    root, coding = found.listing.root, found.labels
    if found.ignores:
        raise DataError(
            f"{root}: has pixels that nobody labelled; a plain folder has no word for them. Write 'nnunet'."
        )
    if coding is not None and coding.task == "regions" and found.listing.masks.kind == "raters":
        raise DataError(f"{root}: several raters drew regions; a plain folder holds one or the other. Write 'nnunet'.")


def notes_on_classes(found: Survey) -> list[str]:
    """Say which names the user has to give again."""
    coding = found.labels
    told = found.listing.masks.declared is not None or found.config.classes is not None
    if coding is None or coding.task == "regions" or coding.classes == ("foreground",) or not told:
        return []
    names = ", ".join(coding.classes)
    return [f"A plain folder does not keep the names of classes: give --set 'data.classes=[{names}]' when training."]


def layers_of(found: Survey, case: CaseFiles) -> Iterator[Layer]:
    """Read the masks of a case as files of a plain folder: one, or one per rater or region."""
    masks = found.masks_of(case)
    if masks is None or found.labels is None:
        return
    if found.labels.task == "regions":
        for name, channel in zip(found.labels.classes, masks[0][0], strict=True):
            yield Layer(_below_masks(found, name), channel, indices=False)
        return
    exclusive = found.labels.exclusive
    for rater, mask in zip(found.listing.masks.by_folder(case.name), masks[0], strict=True):
        values = mask.argmax(axis=0).astype(np.uint8) if exclusive else mask[0]
        yield Layer(_below_masks(found, rater), values, indices=exclusive)


def _below_masks(found: Survey, name: str) -> str:
    """Name a sub-folder so that it is understood: raters by a word for one."""
    if found.listing.masks.kind == "raters":
        name = name if name.lower().startswith(RATER_WORDS) else f"rater_{name}"
        return f"masks/{safe(name)}"
    regions = found.labels is not None and found.labels.task == "regions"
    return f"masks/{safe(name)}" if regions else "masks"


def _write_image(case: CaseFiles, output: CaseOutput, name: str, *, volumes: bool) -> None:
    image, _ = read_channels(case.images)
    if len(case.images) == 1 and case.images[0].is_file():
        copy(case.images[0], output.path("images", f"{name}{ending_of(case.images[0])}"))
    elif volumes:
        write_volume(case, output, "images")
    else:
        write_picture(output.path("images", f"{name}{PICTURE}"), image)
