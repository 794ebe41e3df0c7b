"""Folders of the Medical Segmentation Decathlon: ``dataset.json`` lists pairs of image and label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medsegdiff.config.data import DataConfig
from medsegdiff.data.dataset import DATASETS
from medsegdiff.data.layouts.description import (
    FILE,
    are_volumes,
    classes_labels,
    in_order,
    keys_of,
    modalities_of,
    read_description,
)
from medsegdiff.data.listing import CaseFiles, Layout, Listing, expected, indexed
from medsegdiff.data.masks import Masks
from medsegdiff.data.split import assign
from medsegdiff.errors import DataError
from medsegdiff.io.image import SUFFIXES, image_name
from medsegdiff.labels import Labels

PARTS = {"training": "train", "validation": "val", "test": "test"}


def _match(root: Path) -> bool:
    """Tell whether a folder is one of the Decathlon."""
    keys = keys_of(root)
    return {"modality", "training"} <= keys and not {"channel_names", "file_ending"} & keys


def _list(root: Path, config: DataConfig) -> Listing:
    """List the cases of a Decathlon folder."""
    told = read_description(root, "modality", "labels", "training")
    channels = in_order(told["modality"], root / FILE, "modality")
    pairs = list(_pairs(told, root))
    cases = indexed((case for case, _ in pairs), root)
    if not cases:
        raise expected("training cases in dataset.json", root)
    files = {case.name: label for case, label in pairs if label is not None}
    masks = Masks({"": files}, kind="flat", where=root / "labelsTr", declared=labels_in(told["labels"], root / FILE))
    kept = assign(cases, root / "split.csv")
    modalities = modalities_of(channels, volumes=are_volumes(cases))
    unlisted = tuple(name for name in cases if name not in kept)
    return Listing(root, "msd", kept, masks, channels, modalities, unlisted=unlisted)


def labels_in(labels: Any, file: Path) -> Labels:
    """Understand ``labels``: ``{"0": "background", "1": "liver"}``, or the other way round."""
    pairs = list(labels.items()) if isinstance(labels, dict) else []
    if all(isinstance(value, int) for _, value in pairs):
        pairs = [(value, name) for name, value in pairs]
    names = {int(value): str(name) for value, name in pairs if str(value).isdigit() and int(value) <= 255}
    if len(names) < len(pairs) or not any(names):
        raise DataError(
            f'{file}: labels are {labels}; expected {{"0": "background", "1": NAME, …}} with whole numbers 0 … 255, '
            "each once."
        )
    return classes_labels(names)


def _pairs(told: Mapping[str, Any], root: Path) -> Iterator[tuple[CaseFiles, Path | None]]:
    """List image and label of each case; of a test case there may be a label in ``labelsTs``."""
    for key, part in PARTS.items():
        listed = told.get(key) or []
        for number, entry in enumerate(listed if isinstance(listed, list) else [listed]):
            image, label = (entry.get("image"), entry.get("label")) if isinstance(entry, dict) else (entry, None)
            if not isinstance(image, str) or not isinstance(label, (str, type(None))) or (part != "test" and not label):
                raise DataError(
                    f'{root / FILE}: entry {number} of {key} is {entry}; expected {{"image": path, "label": path}}.'
                )
            if Path(image).name.startswith("._"):  # left by macOS beside each file it copies
                continue
            path = _there(root, image, key)
            beside = root / "labelsTs" / path.name
            mask = _there(root, label, key) if label else beside if beside.is_file() else None
            yield CaseFiles(image_name(path), (path,), part=part), mask


def _there(root: Path, path: str, key: str) -> Path:
    file = root / path
    if not file.name.lower().endswith(SUFFIXES):
        raise DataError(f"{root / FILE}: {key} names {path}; allowed are {', '.join(SUFFIXES)}. Convert the file.")
    if file.is_file():
        return file
    numbered = file.with_name(f"{image_name(file)}_0000{file.name[len(image_name(file)) :]}")
    hint = (
        f"there is {numbered.name}, as in nnU-Net v1: convert it by nnUNetv2_convert_old_nnUNet_dataset."
        if numbered.is_file()
        else "Add the file, or remove it from dataset.json."
    )
    raise DataError(f"{root / FILE}: {key} names {path}; there is no file {file}. {hint[0].upper()}{hint[1:]}")


DATASETS.register(
    "msd",
    kind="layout",
    layout="dataset.json, imagesTr/CASE.nii.gz (channels along the fourth axis), labelsTr/CASE.nii.gz, imagesTs",
)(Layout(_match, _list))
