"""One look through the files of a data set: grids, channels, values of masks, and what is wrong with which case."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np

from medsegdiff.config.data import DataConfig, Modality, Plane
from medsegdiff.data.dataset import CaseFiles, Listing, Track, no_progress
from medsegdiff.data.masks import MaskFile, Masks, Stored, count_values
from medsegdiff.data.modality import common_modalities
from medsegdiff.data.patients import find_patients
from medsegdiff.data.slicing import Slicing, common_plane
from medsegdiff.errors import DataError, GeometryError, MedSegDiffError, size, some
from medsegdiff.io.image import check_same_grid, modality_of, patient_of, read_geometry
from medsegdiff.io.listing import SUFFIXES, LeftOut, Reason, foreign, in_words, list_images
from medsegdiff.io.names import class_folders, image_name
from medsegdiff.labels import Labels
from medsegdiff.types import Geometry


@dataclass(frozen=True)
class CaseScan:
    """What the files of a case say."""

    geometry: Geometry | None = None
    """Of the image; ``None`` where it can't be read."""
    channels: int = 0
    """Of the image."""
    made_by: tuple[str, ...] = ()
    """Modality of each channel in DICOM's words; empty words where its file does not say."""
    counts: Mapping[tuple[str, int], int] = field(default_factory=dict)
    """Folder of masks and stored value → pixels."""
    foreground: tuple[int, ...] = ()
    """Slices of a volume with a structure."""
    problem: MedSegDiffError | None = None


@dataclass(frozen=True)
class Scan:
    """What the files of a data set say, case by case."""

    listing: Listing
    """The cases, in groups by patient where the data set or DICOM files tell."""
    cases: Mapping[str, CaseScan]
    plane: Plane | Literal[""]
    """How volumes are cut, all alike; empty for pictures."""

    @property
    def sound(self) -> list[str]:
        """The cases without a problem."""
        return [name for name, case in self.cases.items() if case.problem is None]

    @property
    def problems(self) -> dict[str, MedSegDiffError]:
        """What is wrong with which case."""
        return {name: case.problem for name, case in self.cases.items() if case.problem is not None}

    @cached_property
    def grids(self) -> dict[str, Geometry]:
        """Where the images lie that can be read."""
        return {name: case.geometry for name, case in self.cases.items() if case.geometry is not None}

    @property
    def counts(self) -> Counter[tuple[str, int]]:
        """Folder of masks and stored value → pixels of all cases."""
        total: Counter[tuple[str, int]] = Counter()
        for case in self.cases.values():
            total.update(case.counts)
        return total

    @property
    def values(self) -> set[int]:
        """All values of all masks."""
        return {value for case in self.cases.values() for _, value in case.counts}

    @property
    def channels(self) -> int:
        """Most image channels of a case."""
        return max((case.channels for case in self.cases.values() if case.problem is None), default=0)

    def modalities(self, config: DataConfig) -> tuple[Modality, ...]:
        """Say what the values of the image channels are: as the user says, else the data set, else its files."""
        told = config.modalities or self.listing.modalities
        return told or common_modalities({name: self.cases[name].made_by for name in self.sound})

    def labels(self, config: DataConfig) -> Labels:
        """Say what mask values mean."""
        found = self.listing.masks.labels(self.values, task=config.task, classes=config.classes)
        if len(found.classes) > 1:  # what is learned has to be written some day
            try:
                class_folders(found.classes)
            except DataError as error:
                raise DataError(f"{self.listing.root}: {error}") from None
        return found


def scan(
    listing: Listing,
    config: DataConfig,
    names: Iterable[str] | None = None,
    *,
    track: Track = no_progress,
    strict: bool = False,
    also: Callable[[CaseFiles, Stored], None] | None = None,
) -> Scan:
    """Look through images and masks of all cases, or of some.

    What is wrong with a case is kept beside it; where ``strict``, the first of it is raised. ``also`` sees each case
    that is sound so far, while its masks are in memory; what it raises is a problem of the case, too.
    """
    heads = {name: _head(listing.cases[name]) for name in sorted(listing.cases if names is None else names)}
    listing = _by_patient(listing, heads)
    result = Scan(listing, heads, "")
    volumes = [grid for grid in result.grids.values() if grid.affine is not None]
    if volumes:
        result = replace(result, plane=common_plane(volumes, config.plane))
    if strict:
        check_channels_alike(result)
    found = {}
    for name in track(list(heads), "Looking through the files"):
        found[name] = _with_masks(heads[name], listing.cases[name], result, also)
        if strict and (problem := found[name].problem):
            raise problem
    return replace(result, cases=found)


def _by_patient(listing: Listing, heads: Mapping[str, CaseScan]) -> Listing:
    """Put cases of one patient into a group, and say so."""
    ids = {name: patient_of(head.geometry) for name, head in heads.items() if head.geometry}
    found = find_patients(listing.cases, ids)
    grouped = {name: replace(listing.cases[name], group=group) for name, group in found.groups.items()}
    return replace(listing, cases={**listing.cases, **grouped}, understood=(*listing.understood, *found.understood))


def _head(case: CaseFiles) -> CaseScan:
    """Look at an image without reading its pixels."""
    try:
        found = {path: read_geometry(path) for path in case.images}
        grids = [(path, geometry) for path, (geometry, _) in found.items()]
        check_grids(grids)
    except MedSegDiffError as error:
        return CaseScan(problem=error)
    made_by = [modality_of(geometry) for geometry, channels in found.values() for _ in range(channels)]
    return CaseScan(grids[0][1], len(made_by), tuple(made_by))


def _with_masks(
    head: CaseScan, case: CaseFiles, whole: Scan, also: Callable[[CaseFiles, Stored], None] | None
) -> CaseScan:
    if head.geometry is None:
        return head
    masks = whole.listing.masks
    try:
        stored = _stored(case, head.geometry, masks)
        found = replace(head, counts=_counts(stored, masks.by_folder(case.name)))
        if whole.plane:
            found = replace(found, foreground=_foreground(stored, masks, Slicing(head.geometry, whole.plane)))
        if also:
            also(case, stored)
    except MedSegDiffError as error:
        return replace(head, problem=error)
    return found


def _stored(case: CaseFiles, geometry: Geometry, masks: Masks) -> Stored:
    """Read the masks of a case, and make sure that they lie on its grid."""
    files = masks.files(case.name)
    if geometry.affine is not None:  # of volumes by their headers, which tell of more than the shape
        check_grids([(case.images[0], geometry), *((path, masks.reader.geometry(path)) for path in files)])
        return masks.stored(case.name)
    stored = [(path, masks.reader.values(path)) for path in files]
    grids = [(path, Geometry(shape=values.shape, spacing=geometry.spacing)) for path, values in stored]
    check_grids([(case.images[0], geometry), *grids])
    return stored


def _counts(stored: Stored, folders: Iterable[str]) -> dict[tuple[str, int], int]:
    counted: dict[tuple[str, int], int] = {}
    for folder, (_, values) in zip(folders, stored, strict=True):
        of_value = count_values(values)
        counted |= {(folder, value): int(of_value[value]) for value in np.flatnonzero(of_value).tolist()}
    return counted


def _foreground(stored: Stored, masks: Masks, slicing: Slicing) -> tuple[int, ...]:
    areas = sum(slicing.areas(masks.structures(values)) for _, values in stored)
    return tuple(np.flatnonzero(areas).tolist()) if stored else ()


def check_grids(files: Sequence[tuple[MaskFile, Geometry]]) -> None:
    """Make sure that the channels of an image, or an image and its masks, lie on one grid."""
    (first, geometry), *others = files
    for path, other in others:
        if other.shape != geometry.shape:
            unit = " (height×width)" if len(geometry.shape) == 2 else ""
            turned = unit and other.shape == geometry.shape[::-1]
            hint = " One of them may be turned by its EXIF or TIFF orientation, which viewers follow." if turned else ""
            raise GeometryError(
                f"{first} is {size(geometry.shape)} but {path} is {size(other.shape)}{unit}. "
                f"They must lie on the same grid.{hint}"
            )
        check_same_grid(geometry, other, names=(str(first), str(path)))


def unlabelled(listing: Listing) -> list[str]:
    """List the cases that should have a mask and have none; of a test set it may be secret."""
    known = set(listing.masks.names)
    return sorted(name for name, case in listing.cases.items() if case.part != "test" and name not in known)


def no_masks(listing: Listing) -> str:
    """Say how masks are known where there are none, and which files may be some and are not read."""
    left_out = [*listing.left_out, *listing.masks.left_out]
    beside = listing.root.iterdir() if listing.root.is_dir() else ()
    told = (
        f"A mask is a file ({', '.join(SUFFIXES)}, DICOM) with a word for it (mask, label, gt, seg …) in its name or "
        "that of its folder, or lies in the folder that data.mask_dir names.",
        in_words(left_out),
        foreign((*beside, *(entry.path for entry in left_out))),
    )
    return " ".join(filter(None, told))


def without_image(listing: Listing) -> dict[str, LeftOut | None]:
    """Find the masks to which there is no image, with the entry of a folder that may be it and was left out."""
    known = {*listing.cases, *listing.unlisted}
    alone = [name for name in listing.masks.names if name not in known]
    waiting = _by_case(listing.left_out) if alone else {}
    return {name: waiting.get(name) for name in alone}


def _by_case(left_out: Sequence[LeftOut]) -> dict[str, LeftOut]:
    """Index what was left out by the cases that it may be, or hold."""
    found: dict[str, LeftOut] = {}
    for entry in left_out:
        below = list_images(entry.path).images if entry.reason is Reason.FOLDER else ()
        found |= {image_name(path): entry for path in (entry.path, *below)}
    return found


def unlisted_in_words(listing: Listing) -> list[str]:
    """Say which images the split does not name."""
    count = len(listing.unlisted)
    return [f"{count} images are in no part of the split and are not used: {some(listing.unlisted)}."] if count else []


def passed_over(listing: Listing, *, masks: bool = True) -> list[str]:
    """Say which files of a data set are not used and why, a line for each kind; of ``masks`` only where they matter."""
    lines = [in_words(listing.left_out), *unlisted_in_words(listing)]
    if masks:
        lines.append(in_words(listing.masks.left_out))
    if masks and (alone := list(without_image(listing))):
        lines.append(f"{len(alone)} masks have no image and are not used: {some(alone)}.")
    return [line for line in lines if line]


def check_channels_alike(found: Scan) -> None:
    """Refuse volumes with different numbers of channels: which sequence would be which?"""
    if not found.plane:
        return
    examples = {found.cases[name].channels: found.listing.cases[name].images[0] for name in found.sound}
    if len(examples) > 1:
        shown = some([f"{path} has {count}" for count, path in examples.items()])
        raise DataError(
            f"The volumes differ in their channels: {shown}. Give each the same channels in the same order."
        )
