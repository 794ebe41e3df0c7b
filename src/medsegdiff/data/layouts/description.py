"""``dataset.json``, by which nnU-Net and the Medical Segmentation Decathlon describe their folders."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medsegdiff.config.data import Modality
from medsegdiff.data.listing import CaseFiles, expected
from medsegdiff.data.masks import Masks, whole
from medsegdiff.errors import DataError, some
from medsegdiff.io.image import is_volume
from medsegdiff.labels import Labels

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


def check_labels_have_images(masks: Masks, cases: Mapping[str, CaseFiles]) -> None:
    """Refuse labels to which there is no image: it was forgotten, or named otherwise."""
    if alone := [name for name in masks.names if name not in cases]:
        file = whole(masks.files(alone[0])[0])
        raise DataError(
            f"{masks.root}: {len(alone)} labels have no image: {some(alone)} ({file.name}, say). "
            "Add the images, or remove the labels."
        )


def are_volumes(cases: Mapping[str, CaseFiles]) -> bool:
    """Tell whether the images have three axes of space, by the first."""
    return any(is_volume(case.images[0]) for case in list(cases.values())[:1])
