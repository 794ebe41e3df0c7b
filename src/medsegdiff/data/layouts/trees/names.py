"""What cases of a tree are called, and which of them stay together in one part of the split."""

from __future__ import annotations

from collections import Counter
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
    """Name cases after their files and sub-folders, with as many words as it takes to tell all of them apart."""
    outer = _shared(images)
    folders = {image: image.within[outer:] for image in images}
    inner = {image: [name for name in folders[image] if not begins(image.stem, name)] for image in images}
    short, whole = ({image: _joined(image, of[image]) for image in images} for of in (inner, folders))
    ways = (short, _in_part(short), whole, _in_part(whole))
    names = next((way for way in ways if len(set(way.values())) == len(images)), short)
    grouped = are_groups(images) if asked == "auto" else asked == "groups"
    return {image: Named(name, "/".join(folders[image]) if grouped else "") for image, name in names.items()}


def _shared(images: Sequence[Place]) -> int:
    """Count the outermost sub-folders that all images have in common, but for their last."""
    folders = [image.within for image in images]
    deepest = min(map(len, folders), default=1) - 1
    return next((level for level in range(deepest) if len({within[level] for within in folders}) > 1), max(deepest, 0))


def _joined(image: Place, folders: Sequence[str]) -> str:
    """Put sub-folders before the name of a file; one that is a word for images is no name beside theirs."""
    if image.within and bare_image(image.stem) == "":
        return file_name("-".join(folders or image.within))
    return file_name("-".join((*folders, image.stem)))


def _in_part(names: Mapping[Place, str]) -> Mapping[Place, str]:
    return {image: "-".join(filter(None, (image.part, name))) for image, name in names.items()}


def begins(stem: str, folder: str) -> bool:
    """Tell whether a file is named after its folder, maybe with more words behind."""
    return key_of(stem).startswith(key_of(folder)) and not key_of(stem)[len(key_of(folder)) :][:1].isalnum()


def are_groups(images: Sequence[Place]) -> bool:
    """Tell groups (patients) from kinds by the names of sub-folders: numbered, and not by a word for a kind.

    Where each image has a folder of its own there is nothing to keep together, in one folder nothing to tell apart.
    """
    count = Counter(image.within for image in images)
    folders = {within[-1] for within in count if within}
    numbered = all(any(map(str.isdigit, words_of(folder))) for folder in folders)
    return max(count.values(), default=1) > 1 and len(count) > 1 and bool(folders) and numbered and not _kinds(folders)


def _kinds(folders: set[str]) -> bool:
    return any(any(map(KIND.fullmatch, words_of(folder))) for folder in folders)
