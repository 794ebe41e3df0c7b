"""nnU-Net v2 raw folders: ``DatasetXXX_Name/`` with ``dataset.json``, ``imagesTr``, ``labelsTr`` and ``imagesTs``."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medsegdiff.config.data import DataConfig
from medsegdiff.data.dataset import DATASETS, CaseFiles, Layout, Listing, expected, indexed
from medsegdiff.data.layouts.msd import (
    FILE,
    are_volumes,
    beside,
    check_labels_have_images,
    classes_labels,
    in_order,
    keys_of,
    modalities_of,
    read_description,
)
from medsegdiff.data.masks import Masks
from medsegdiff.data.split import assign
from medsegdiff.errors import DataError, some
from medsegdiff.io.listing import SUFFIXES, list_images
from medsegdiff.io.names import case_name
from medsegdiff.labels import Labels

NAMED = re.compile(r"Dataset\d{3}_.+")
"""What nnU-Net calls its folders."""
PARTS = {"Tr": "train", "Ts": "test"}


def _match(root: Path) -> bool:
    """Tell whether a folder is one of nnU-Net v2."""
    keys = keys_of(root)
    broken = not keys and NAMED.fullmatch(root.name) is not None and (root / FILE).is_file()
    return broken or "channel_names" in keys or {"labels", "file_ending"} <= keys


def _list(root: Path, config: DataConfig) -> Listing:
    """List the cases of a raw folder of nnU-Net v2."""
    told = read_description(root, "channel_names", "labels", "file_ending")
    channels = in_order(told["channel_names"], root / FILE, "channel_names")
    ending = _ending(told["file_ending"], root / FILE)
    labels = labels_in(told["labels"], told.get("regions_class_order"), root / FILE)
    listed = _listed_cases(told, root) if "dataset" in told else _cases_in(root, "Tr", ending)
    cases = indexed([*listed, *_cases_in(root, "Ts", ending)], root)
    if not cases:
        raise expected(f"images imagesTr/CASE_0000{ending}", root)
    _check_channels(cases, channels, ending)
    files = _listed_labels(told, root) if "dataset" in told else _labels_in(root / "labelsTr", ending)
    masks = Masks(
        {"": files | _labels_in(root / "labelsTs", ending)}, kind="flat", where=root / "labelsTr", declared=labels
    )
    left_out = beside(cases, root)
    check_labels_have_images(masks, cases, left_out)
    kept = assign(cases, root / "split.csv")
    modalities = modalities_of(channels, volumes=are_volumes(cases))
    unlisted = tuple(name for name in cases if name not in kept)
    return Listing(root, "nnunet", kept, masks, channels, modalities, unlisted=unlisted, left_out=left_out)


def labels_in(labels: Any, order: Any, file: Path) -> Labels:
    """Understand ``labels``: classes that exclude each other, or regions made of several values."""
    values = _values(labels, file)
    ignore = values.pop("ignore", (None,))[0]
    known = sorted({value for of_name in values.values() for value in of_name})
    if known != list(range(len(known))) or ignore not in (None, len(known)) or len(known) < 2:
        raise DataError(
            f"{file}: labels are {labels}; allowed are the values 0 (background), 1, 2 … without a gap, and 'ignore' "
            "as the one after the last. Number them so, in the label files too."
        )
    if not any(isinstance(value, list) for value in labels.values()):
        return classes_labels({of_name[0]: name for name, of_name in values.items()}, ignore=ignore)
    regions = {name: of_name for name, of_name in values.items() if of_name != (0,)}
    if not isinstance(order, list) or len(order) != len(regions) or any(v not in known for v in order):
        raise DataError(
            f"{file}: regions_class_order is {order}; expected a list of {len(regions)} values of labels, one for each "
            f"of the regions {some(list(regions))}, each written over those before it."
        )
    painted = tuple(int(value) for value in order)
    return Labels("regions", tuple(regions), values=tuple(regions.values()), ignore=ignore, order=painted)


def _values(labels: Any, file: Path) -> dict[str, tuple[int, ...]]:
    given = labels if isinstance(labels, dict) else {}
    found = {name: tuple(value) if isinstance(value, list) else (value,) for name, value in given.items()}
    if not found or any(not isinstance(v, int) or not 0 <= v <= 255 for of_name in found.values() for v in of_name):
        raise DataError(
            f'{file}: labels are {labels}; expected {{"background": 0, NAME: 1, …}} with whole numbers 0 … 255, or '
            "lists of them for regions."
        )
    return found


def _ending(ending: Any, file: Path) -> str:
    if str(ending).lower() not in SUFFIXES:
        raise DataError(
            f"{file}: file_ending is '{ending}'; allowed are {', '.join(SUFFIXES)}. Save the images and labels as "
            ".nii.gz (SimpleITK reads .mha and .nrrd), or pictures as .png, and correct file_ending."
        )
    return str(ending)


def _cases_in(root: Path, short: str, ending: str) -> Iterator[CaseFiles]:
    """Group ``imagesTr/CASE_0000.png``, ``CASE_0001.png``, … by case."""
    found: dict[str, dict[int, Path]] = defaultdict(dict)
    pattern = re.compile(r"(.+)_(\d{4})")
    for path in _files(root / f"images{short}", ending):
        if not (match := pattern.fullmatch(path.name[: -len(ending)])):
            raise DataError(
                f"{path}: expected a name such as CASE_0000{ending}, the number of the channel at its end. Rename it."
            )
        name, number = match[1], int(match[2])
        if number in found[name]:
            raise DataError(f"{found[name][number]} and {path} are the same channel of '{name}'. Keep one of them.")
        found[name][number] = path
    for name, files in found.items():
        if sorted(files) != list(range(len(files))):
            missing = next(number for number in range(len(files)) if number not in files)
            raise _missing(name, f"{name}_{missing:04d}{ending}", files.values())
        yield CaseFiles(name, tuple(files[number] for number in sorted(files)), part=PARTS[short])


def _files(folder: Path, ending: str) -> list[Path]:
    """List the files with an ending, in capitals or not."""
    images = list_images(folder).images if folder.is_dir() else ()
    return [path for path in images if path.name.lower().endswith(ending.lower())]


def _labels_in(folder: Path, ending: str) -> dict[str, Path]:
    cases = (CaseFiles(path.name[: -len(ending)], (path,)) for path in _files(folder, ending))
    return {name: case.images[0] for name, case in indexed(cases, folder).items()}


def _listed_cases(told: Mapping[str, Any], root: Path) -> Iterator[CaseFiles]:
    for name, entry in _entries(told, root).items():
        checked = case_name(name, where=root / FILE)
        yield CaseFiles(checked, tuple(_there(root, path, name) for path in entry["images"]), part="train")


def _listed_labels(told: Mapping[str, Any], root: Path) -> dict[str, Path]:
    return {name: _there(root, entry["label"], name) for name, entry in _entries(told, root).items()}


def _entries(told: Mapping[str, Any], root: Path) -> dict[str, Any]:
    entries = told["dataset"]
    for name, entry in entries.items() if isinstance(entries, dict) else [("", entries)]:
        images, label = (entry.get("images"), entry.get("label")) if isinstance(entry, dict) else (None, None)
        paths = [*images, label] if isinstance(images, list) and images else [None]
        if not all(isinstance(path, str) for path in paths):
            raise DataError(
                f"{root / FILE}: the case '{name}' of dataset is {entry}; expected {{\"images\": [paths], "
                '"label": path}.'
            )
    return dict(entries)


def _there(root: Path, path: str, name: str) -> Path:
    file = root / path  # an absolute path stays what it is
    if not file.exists():
        raise DataError(f"{root / FILE}: of the case '{name}' it names {path}; there is no file {file}. Correct one.")
    return file


def _check_channels(cases: Mapping[str, CaseFiles], channels: tuple[str, ...], ending: str) -> None:
    """One file per channel; a picture in colour is one file of three."""
    most = max(len(case.images) for case in cases.values())
    beyond = len(channels) - most
    coloured = not are_volumes(cases) and beyond % 2 == 0 and 0 <= beyond <= 2 * most
    count = most if coloured else len(channels)
    for case in cases.values():
        number = len(case.images)
        if number < count:
            raise _missing(case.name, f"{case.name}_{number:04d}{ending} ({channels[number]})", case.images)
        if number > count:
            raise DataError(
                f"{case.images[-1]}: is file {number} of the case '{case.name}', but channel_names tells of "
                f"{len(channels)}: {', '.join(channels)}. Remove the file, or name its channel."
            )


def _missing(name: str, file: str, found: Any) -> DataError:
    here = some([path.name for path in found], most=8)
    return DataError(f"A channel of the case '{name}' is missing: expected {file}; found {here}. Add the file.")


DATASETS.register(
    "nnunet",
    kind="layout",
    layout="dataset.json, imagesTr/CASE_0000.nii.gz|png …, labelsTr/CASE.nii.gz|png, imagesTs, labelsTs, split.csv",
)(Layout(_match, _list))
