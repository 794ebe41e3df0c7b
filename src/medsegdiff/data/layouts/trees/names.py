"""What cases of a tree are called, and which of them stay together in one part of the split."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medsegdiff.config.data import ImageFolders
from medsegdiff.data.layouts.trees.places import Place
from medsegdiff.data.layouts.trees.words import KIND, bare_image, key_of, words_of
from medsegdiff.io.names import file_name


@dataclass(frozen=True)
class Named:
    """Name and group of a case."""

    name: str
    group: str = ""
    """Cases of one group (a patient, say) stay together; empty: each by itself."""


def named(images: Sequence[Place], asked: ImageFolders) -> Mapping[Place, Named]:
    """Name cases after their files with the sub-folders before, and with the part where parts share names."""
    names = {image: _name(image) for image in images}
    parts: dict[str, set[str]] = defaultdict(set)
    for image, name in names.items():
        parts[name].add(image.part)
    if any(len(of_name) > 1 for of_name in parts.values()):
        names = {image: "-".join(filter(None, (image.part, name))) for image, name in names.items()}
    grouped = are_groups(images) if asked == "auto" else asked == "groups"
    return {image: Named(name, "/".join(image.within) if grouped else "") for image, name in names.items()}


def _name(image: Place) -> str:
    """Put sub-folders before the name of a file, but those that it begins with; a word for images is no name."""
    if image.within and bare_image(image.stem) == "":
        return file_name("-".join(image.within))
    return file_name("-".join((*(folder for folder in image.within if not begins(image.stem, folder)), image.stem)))


def begins(stem: str, folder: str) -> bool:
    """Tell whether a file is named after its folder, with or without more behind."""
    return key_of(stem).startswith(key_of(folder))


def are_groups(images: Sequence[Place]) -> bool:
    """Tell groups (patients) from kinds by the names of sub-folders: numbered, and not by a word for a kind.

    Where each image has a folder of its own there is nothing to keep together.
    """
    count = Counter(image.within for image in images)
    folders = {within[-1] for within in count if within}
    numbered = all(any(map(str.isdigit, words_of(folder))) for folder in folders)
    return max(count.values(), default=1) > 1 and bool(folders) and numbered and not _kinds(folders)


def _kinds(folders: set[str]) -> bool:
    return any(any(map(KIND.fullmatch, words_of(folder))) for folder in folders)
