"""Which files of a folder are predictions: masks, members and probabilities, in DICOM, or as ``segment`` left them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from medsegdiff.data.dataset import CaseFiles
from medsegdiff.data.layouts.dicom_masks import dicom_mask_files, dicom_masks
from medsegdiff.data.mask_folder import mask_folder
from medsegdiff.data.mask_values import TWO_VALUES
from medsegdiff.data.masks import Masks, whole
from medsegdiff.errors import DataError, some
from medsegdiff.evaluation.naming import labels_made, names_made
from medsegdiff.evaluation.predictions import Maps, Predictions
from medsegdiff.io.listing import folders_in, list_images
from medsegdiff.io.names import class_folders
from medsegdiff.labels import Labels


def inner(folder: Path, *parts: str) -> Path:
    """Find a part of what ``segment`` wrote; any other folder is taken as it is."""
    return next((folder / part for part in parts if (folder / part).is_dir()), folder)


def find_predictions(
    folder: Path,
    kind: str,
    labels: Labels,
    *,
    names: Sequence[str],
    cases: Mapping[str, CaseFiles],
    fusion: str,
    checked: bool,
) -> Predictions:
    """Look through a folder of predictions; ``checked`` refuses grey values in masks."""
    made = labels_made(folder)
    union = labels.task == "binary" and not checked  # all foreground is one, whatever its names
    told = {} if made is None or union else names_made(labels, made, where=folder)

    def masks_in(part: Path) -> Masks:
        return _find_masks(part, labels, names=names, cases=cases, checked=checked, made=made, told=told)

    def maps_in(part: Path) -> Maps:
        first = {labels.classes[0]: made.classes[0]} if told and made is not None and labels.exclusive else {}
        return _find_maps(part, labels, names=names, told={**first, **told})

    if kind == "probabilities":
        return Predictions(folder, labels, maps=maps_in(inner(folder, "probability")), called=told)
    if kind == "members":
        parts = _members(inner(folder, "members"))
        if not parts:
            raise DataError(f"{folder}: holds no folder; expected one folder of masks per member.")
        return Predictions(folder, labels, members=tuple(map(masks_in, parts)), fusion=fusion, called=told)
    if not (folder / "masks").is_dir() and not (folder / "labels").is_dir():
        only = next((part for part in ("members", "probability") if (folder / part).is_dir()), "")
        if only and not list_images(folder).images:
            raise DataError(f"{folder}: holds no masks, but {only}/. Score {folder / only}.")
    maps, uncertainty = folder / "probability", folder / "uncertainty"
    one = Labels("binary", ("uncertainty",))
    return Predictions(
        folder,
        labels,
        masks=masks_in(folder),
        members=tuple(map(masks_in, _members(folder / "members"))),
        maps=maps_in(maps) if maps.is_dir() else None,
        uncertainty=_find_maps(uncertainty, one, names=names, told={}) if uncertainty.is_dir() else None,
        called=told,
    )


def _members(folder: Path) -> list[Path]:
    return folders_in(folder) if folder.is_dir() else []


def _find_maps(folder: Path, labels: Labels, *, names: Collection[str], told: Mapping[str, str]) -> Maps:
    """Look through a folder of probabilities; ``told``: what the model calls the classes."""
    found = mask_folder(folder, kind="structures", names=names)
    by_folder = {
        of: {name: whole(found.by_folder(name)[of]) for name in found.names if of in found.by_folder(name)}
        for of in found.folders
    }
    if len(labels.classes) == 1 and set(by_folder) == {""}:
        return Maps(folder, (by_folder[""],))
    wanted = list(class_folders([told.get(name, name) for name in labels.classes]))
    optional = {wanted[0]} if labels.exclusive else set()
    if missing := [name for name in wanted if name not in by_folder and name not in optional]:
        raise DataError(
            f"{folder}: holds {some([name or 'pictures' for name in by_folder])}; expected a folder of probabilities "
            f"for each of {some(wanted)}; {some(missing)} is missing."
        )
    return Maps(folder, tuple(by_folder.get(name) for name in wanted))


def _find_masks(
    folder: Path,
    labels: Labels,
    *,
    names: Sequence[str],
    cases: Mapping[str, CaseFiles],
    checked: bool,
    made: Labels | None,
    told: Mapping[str, str],
) -> Masks:
    """Look through predicted masks; ``told``: what the model that ``made`` them calls the structures."""
    if (drawn := _drawn(folder)) and cases:
        return dicom_masks(drawn, cases, where=folder, classes=labels.structures)
    parts = ("labels", "masks") if labels.exclusive else ("masks", "labels")
    found = mask_folder(inner(folder, *parts), kind="structures", names=names)
    if made is not None and told and (by_name := _by_name(found, labels, made, told)) is not None:
        return by_name
    if labels.task == "regions" and not (len(labels.classes) == 1 and found.kind == "flat"):
        if labels.values and found.folders == ("",):  # label maps of regions
            return _flat(found)
        found = _regions(found, labels)
    elif labels.task != "regions" and found.kind != "flat":
        raise DataError(
            f"{found.root} holds several folders: {some(found.folders)}. Score one of them at a time; "
            "if they are the members of an ensemble, say --as members."
        )
    coded = made is not None and made.task == "binary" and found.root.name == "labels"  # perhaps by a value of its own
    if checked and not coded and not labels.exclusive and (values := found.values()) not in TWO_VALUES:
        shown = some([str(value) for value in sorted(values)])
        raise DataError(
            f"{found.root}: predicted values are {shown}; masks hold 0/1 or 0/255. If these are probabilities, or grey "
            "edges, say --as probabilities: they are cut at half."
        )
    return found


def _flat(found: Masks, coding: Labels | None = None) -> Masks:
    """Take the only file of each case for a label map, with the ``coding`` of the references unless it has its own."""
    files = {name: found.files(name)[0] for name in found.names}
    return Masks({"": files}, kind="flat", where=found.root, declared=coding)


def _by_name(found: Masks, labels: Labels, made: Labels, told: Mapping[str, str]) -> Masks | None:
    """Take label maps and folders of structures by the names that the model has; nothing of other masks."""
    if found.folders == ("",):
        known = {name: own for own, name in told.items()}
        called = replace(made, classes=tuple(known.get(name, name) for name in made.classes))
        return _flat(found, called) if made.exclusive or made.values else None
    folders = class_folders([told[name] for name in labels.structures])
    return found.ordered(folders) if {*folders} <= {*found.folders} else None


def _regions(found: Masks, labels: Labels) -> Masks:
    """Put the folders of regions into the order of the classes."""
    folders = list(class_folders(labels.classes))
    if set(found.folders) != set(folders):
        raise DataError(
            f"{found.root} holds {some([folder or 'masks' for folder in found.folders])}; the references hold the "
            f"structures {some(labels.classes)}. Expected one folder of predictions for each. If the folders of the "
            "references are raters, set data.mask_folders=raters."
        )
    return found.ordered(folders)


def _drawn(folder: Path) -> dict[str, Path]:
    """Find masks in DICOM; probabilities beside them are none."""
    found = dicom_mask_files(inner(folder, "dicom-seg") if not (folder / "masks").is_dir() else folder)
    return {name: path for name, path in found.items() if "_probability" not in name}
