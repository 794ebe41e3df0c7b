"""What belongs to what: which files are references and which predictions, and what their values mean."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from medsegdiff.config.data import DataConfig
from medsegdiff.data.dataset import CaseFiles, Track
from medsegdiff.data.mask_folder import mask_folder, without_mark
from medsegdiff.data.masks import Masks, missing_structures
from medsegdiff.data.open import detect, list_cases, matches
from medsegdiff.data.patients import read_patients
from medsegdiff.data.split import names_in, read_split
from medsegdiff.errors import DataError, GeometryError, size, some
from medsegdiff.evaluation.consensus import Consensus
from medsegdiff.evaluation.files import find_predictions, inner
from medsegdiff.evaluation.naming import by_case
from medsegdiff.evaluation.predictions import Predictions
from medsegdiff.evaluation.structures import Structures, scored_structures
from medsegdiff.fusion.fusers import FUSERS
from medsegdiff.inference.folder import SegmentationFolder
from medsegdiff.inference.record import ImageRecord
from medsegdiff.io.image import check_same_grid
from medsegdiff.io.listing import in_words, list_images
from medsegdiff.io.names import folder_name, image_name
from medsegdiff.labels import Labels
from medsegdiff.metrics.lesions import LesionRule
from medsegdiff.types import Geometry

log = logging.getLogger(__name__)

Kind = Literal["auto", "masks", "probabilities", "members"]
"""What predictions are; ``auto`` goes by the names of folders."""
KINDS = {"members": "members", "probability": "probabilities", "probabilities": "probabilities"}
"""Folders that say what they hold by their names."""


@dataclass(frozen=True)
class _References:
    """The masks of the raters, and what is told of the cases."""

    masks: Masks
    cases: Mapping[str, CaseFiles]
    """Of a data set; empty for a folder of masks."""


@dataclass(frozen=True)
class Pairing:
    """The files to compare, by case."""

    names: tuple[str, ...]
    reference: Masks
    predictions: Predictions
    structures: Structures
    """What the values mean, and which structures are scored."""
    groups: Mapping[str, str]
    """Case → group (patient), where there is one."""
    cases: Mapping[str, CaseFiles] = field(default_factory=dict)
    """The images, where the references are a data set."""
    consensus: Consensus = "majority"
    """What several raters are taken for."""
    stated: Mapping[str, ImageRecord] = field(default_factory=dict)
    """What ``segment.json`` says of each case."""
    lesions: LesionRule | None = None
    """How lesions are counted; ``None``: they are not."""

    @property
    def labels(self) -> Labels:
        """The label space."""
        return self.structures.labels

    def files(self, name: str) -> list[Path]:
        """List the files of masks and maps that a case is scored of."""
        masks = [self.reference, *self.predictions.folders()]
        drawn = [path for of in masks for file in of.files(name) for path in of.reader.files(file)]
        return [*drawn, *self.predictions.map_files(name)]

    @property
    def volumes(self) -> bool:
        """Whether masks have three axes of space."""
        return bool(self.names) and len(grid_of(self.names[0], self.reference).shape) > 2


def pair(
    predictions: Path,
    references: Path,
    *,
    split: str | None,
    present_only: bool,
    data: DataConfig,
    kind: Kind,
    fusion: str,
    track: Track,
) -> Pairing:
    """Find out what is compared with what."""
    FUSERS[fusion]  # an unknown name shows, whether or not anything is fused
    root = inner(references, data.mask_dir or "masks")
    places = (SegmentationFolder.around(predictions).root, references, root.parent)
    listed = None if split is None else _listed(split, places)
    data = data.model_copy(update={"layout": _layout(predictions, references, data)})
    bare = data.layout == "auto" and _are_masks_alone(references, inner(predictions, "labels", "masks"))
    found = _references(references, root, data, known=listed or (), bare=bare)
    reference = found.masks
    if line := in_words(reference.left_out):
        log.warning("%s", line)
    asked = _names_of(split, found, references) if split is not None and listed is None else listed
    known = set(reference.names)
    asked = None if asked is None else sorted(by_case(dict.fromkeys(asked), known))
    what = KINDS.get(folder_name(predictions), "masks") if kind == "auto" else kind
    structures = scored_structures(reference, predictions, data, track, indices=what == "masks")
    given = find_predictions(
        predictions,
        what,
        structures.labels,
        names=reference.names,
        cases=found.cases,
        fusion=fusion,
        checked=data.task is None,
    )
    given = replace(given, raters=_raters(predictions, reference))
    names = reference.names if asked is None else asked
    if present_only:
        predicted = set(given.names)
        names = [name for name in names if name in predicted]
    _check_names(names, given, reference)
    return Pairing(tuple(names), reference, given, structures, _groups(names, found, places), found.cases)


def _raters(predictions: Path, reference: Masks) -> int:
    """Find out whose majority fused members are to match: as many as the run was told of, else those at hand."""
    made = SegmentationFolder.around(predictions).read()
    if made is not None and made.raters is not None:
        return made.raters
    return max(len(reference.files(name)) for name in reference.names) if reference.kind == "raters" else 1


def _layout(predictions: Path, references: Path, data: DataConfig) -> str:
    """Read references as those were read that the model was trained on, where it is told and they look alike."""
    made = SegmentationFolder.around(predictions).read()
    if data.layout == "auto" and made is not None and made.layout and matches(made.layout, references, asked=True):
        return made.layout
    return data.layout


def _are_masks_alone(references: Path, predictions: Path) -> bool:
    """Tell whether what looks like images beside their masks are masks: there are predictions named as the "masks"."""
    if not references.is_dir() or not predictions.is_dir():
        return False
    stems, predicted = ({image_name(path) for path in list_images(of).images} for of in (references, predictions))
    return any(without_mark(stem) in stems - {stem} for stem in stems & predicted)


def _references(whole: Path, root: Path, data: DataConfig, *, known: Collection[str], bare: bool) -> _References:
    """Find reference masks: of a data set in any layout, or of a ``bare`` folder of masks."""
    if not bare and (data.layout != "auto" or detect(whole) is not None):
        listing = list_cases(whole, data)
        if listing.masks.names:
            return _References(listing.masks, listing.cases)
    masks = mask_folder(root, kind=data.mask_folders, names=known)
    return _References(masks.above(data.mask_threshold), {})


def _listed(split: str, places: Sequence[Path]) -> list[str] | None:
    """List the cases of a part by the first ``split.csv`` that tells of parts, and not of patients alone."""
    files = [folder / "split.csv" for folder in places if (folder / "split.csv").is_file()]
    file = next((file for file in files if any(entry.part for entry in read_split(file))), None)
    return None if file is None else sorted(names_in(file, split))


def _names_of(split: str, found: _References, references: Path) -> list[str]:
    """List the cases of a part as the data set itself says."""
    names = sorted(name for name, case in found.cases.items() if split in (case.part, "all"))
    if not names:
        raise DataError(
            f"There is no split.csv of parts beside the predictions or in {references}, so '{split}' is not known. "
            f"'medsegdiff segment --split {split}' puts the run's split beside its masks."
        )
    return names


def _groups(names: Collection[str], found: _References, places: Sequence[Path]) -> dict[str, str]:
    """Find out which patient each case is of: the data set says so, a ``split.csv``, or else DICOM files."""
    groups = {name: case.group for name, case in found.cases.items() if case.group}
    for file in (folder / "split.csv" for folder in places):
        if not groups and file.is_file():
            told = {entry.name: entry.group for entry in read_split(file) if entry.group}
            groups = by_case(told, set(found.masks.names))
    cases = {name: replace(case, group=groups.get(name, "")) for name, case in found.cases.items()}
    groups |= read_patients(cases).groups
    return {name: groups[name] for name in names if name in groups}


def _check_names(names: Sequence[str], given: Predictions, reference: Masks) -> None:
    if missing := sorted(set(names) - set(given.names)):
        raise DataError(
            f"{len(missing)} of {len(names)} references have no prediction in {given.where}: {some(missing)}. "
            "Segment them too, or name a part of split.csv with --split."
        )
    if missing := sorted(set(names) - set(reference.names)):
        raise DataError(
            f"{len(missing)} of {len(names)} cases have no reference in {reference.root}: {some(missing)}. "
            "Add their masks (nnU-Net and the Decathlon have those of test cases in labelsTs), or segment and score "
            "another part with --split. To hold out cases that have masks, name all that have them in a split.csv in "
            "the data, some with the part test, and train with it."
        )
    for name in names:
        given.count(name)
    for folder in (*given.folders(), reference):
        if incomplete := missing_structures(folder.incomplete(name for name in names if folder.has(name))):
            raise DataError(f"{folder.root}: structures are missing: {some(incomplete)}. Save an empty mask for each.")
    for maps in filter(None, (given.maps, given.uncertainty)):
        if missing := sorted(set(names) - set(maps.names)):
            raise DataError(f"{maps.root}: {len(missing)} of {len(names)} cases have no map: {some(missing)}.")
    if strange := sorted(set(given.names) - set(reference.names)):
        raise DataError(
            f"{len(strange)} predictions have no reference in {reference.root}: {some(strange)}. "
            "Names must be equal but for endings such as _mask."
        )


def common_grid(name: str, pairing: Pairing) -> Geometry:
    """Make sure that all masks of a case lie on one grid."""
    reference = pairing.reference
    found = [(path, reference.reader.geometry(path)) for path in reference.files(name)]
    (file, geometry), *others = found + pairing.predictions.grids(name)
    for path, other in others:
        if other.shape != geometry.shape:
            raise GeometryError(
                f"'{name}': the prediction is {size(other.shape)}, the reference {size(geometry.shape)}. "
                f"Score masks on the grid of the reference ({file}, {path})."
            )
        check_same_grid(geometry, other, names=(str(file), str(path)))
    return geometry


def grid_of(name: str, masks: Masks) -> Geometry:
    """Find out where the first mask of a case lies."""
    return masks.reader.geometry(masks.files(name)[0])
