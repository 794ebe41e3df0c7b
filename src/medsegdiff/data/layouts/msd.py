"""Folders of the Medical Segmentation Decathlon: ``dataset.json`` lists pairs of image and label."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medsegdiff.config.data import DataConfig, Modality
from medsegdiff.data.dataset import DATASETS, CaseFiles, Layout, Listing, expected, indexed
from medsegdiff.data.masks import Masks, whole
from medsegdiff.data.split import assign
from medsegdiff.errors import DataError, some
from medsegdiff.io.image import is_volume
from medsegdiff.io.listing import SUFFIXES, LeftOut, Reason, in_words, list_images
from medsegdiff.io.names import ending_of, image_name
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
    left_out = beside(cases, root)
    kept = assign(cases, root / "split.csv")
    modalities = modalities_of(channels, volumes=are_volumes(cases))
    unlisted = tuple(name for name in cases if name not in kept)
    return Listing(root, "msd", kept, masks, channels, modalities, unlisted=unlisted, left_out=left_out)


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
    numbered = file.with_name(f"{file.name.removesuffix(ending_of(file))}_0000{ending_of(file)}")
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


FILE = "dataset.json"
UNNAMED = "channel_"
"""How `medsegdiff.data.convert` begins the name of a channel of which nothing is known."""


def keys_of(root: Path) -> frozenset[str]:
    """List the keys of a folder's description; for `Layout.detect`, so nothing is raised."""
    try:
        found = json.loads((root / FILE).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return frozenset()
    return frozenset(found) if isinstance(found, dict) else frozenset()


def read_json(file: Path) -> Any:
    """Read a JSON file."""
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise DataError(f"{file}: there is no such file.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: can't be read as JSON ({error}). Correct it.") from error


def read_description(root: Path, *keys: str) -> dict[str, Any]:
    """Read the description of a folder."""
    if not (root / FILE).is_file():
        raise expected(FILE, root)
    found = read_json(root / FILE)
    if not isinstance(found, dict):
        raise DataError(f"{root / FILE}: expected an object with the keys {', '.join(keys)}; found a list or a value.")
    if missing := [key for key in keys if key not in found]:
        raise DataError(
            f"{root / FILE}: expected the keys {', '.join(keys)}; {some(missing)} missing, found {some(list(found))}."
        )
    return found


def in_order(named: Any, file: Path, key: str) -> tuple[str, ...]:
    """Put names that are numbered from 0 into order, as those of channels are."""
    given = dict(enumerate(named)) if isinstance(named, list) else named
    try:
        numbered = {int(number): str(name) for number, name in given.items()}
    except (AttributeError, ValueError):
        numbered = {}
    if not numbered or sorted(numbered) != list(range(len(numbered))):
        raise DataError(f'{file}: {key} is {named}; expected {{"0": name, "1": name, …}}, numbered from 0 on.')
    return tuple(numbered[number] for number in range(len(numbered)))


def modalities_of(channels: Sequence[str], *, volumes: bool) -> tuple[Modality, ...]:
    """Tell from the names of channels how they are to be normalised: ``CT`` is the word that both formats know."""
    if not volumes:
        return tuple("natural" for _ in channels)
    if all(name == f"{UNNAMED}{number}" for number, name in enumerate(channels)):
        return ()
    return tuple("ct" if name.strip().lower() == "ct" else "mr" for name in channels)


def classes_labels(names: Mapping[int, str], *, ignore: int | None = None) -> Labels:
    """Make the label space of classes that exclude each other."""
    foreground = tuple(value for value in sorted(names) if value != 0)
    if len(foreground) == 1:
        return Labels("binary", (names[foreground[0]],), values=(foreground,), ignore=ignore)
    values = (0, *foreground)
    classes = (names.get(0, "background"), *(names[value] for value in foreground))
    return Labels("exclusive", classes, values=tuple((value,) for value in values), ignore=ignore)


def check_labels_have_images(masks: Masks, cases: Mapping[str, CaseFiles], left_out: Sequence[LeftOut]) -> None:
    """Refuse labels to which there is no image: it was forgotten, named otherwise, or can't be read."""
    if alone := [name for name in masks.names if name not in cases]:
        file = whole(masks.files(alone[0])[0])
        raise DataError(
            f"{masks.root}: {len(alone)} labels have no image: {some(alone)} ({file.name}, say). "
            f"Add the images, or remove the labels. {in_words(left_out)}".rstrip()
        )


def beside(cases: Mapping[str, CaseFiles], root: Path) -> tuple[LeftOut, ...]:
    """Find what lies in the folders of images and is of no case."""
    taken = {path.resolve() for case in cases.values() for path in case.images}
    held = [list_images(folder) for short in ("Tr", "Ts") if (folder := root / f"images{short}").is_dir()]
    unnamed = [LeftOut(p, Reason.UNNAMED) for of in held for p in of.images if p.resolve() not in taken]
    return (*(entry for of in held for entry in of.left_out), *unnamed)


def are_volumes(cases: Mapping[str, CaseFiles]) -> bool:
    """Tell whether the images have three axes of space, by the first."""
    return any(is_volume(case.images[0]) for case in list(cases.values())[:1])
