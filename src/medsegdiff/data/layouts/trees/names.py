"""What cases of a tree are called, and which of them stay together in one part of the split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medsegdiff.config.data import ImageFolders
from medsegdiff.data.layouts.trees.places import Folder, Place
from medsegdiff.data.layouts.trees.words import KIND, PATIENT, bare_image, key_of, words_of
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
    groups = {} if asked == "kinds" else _groups(folders, asked=asked == "groups")
    return {image: Named(name, groups.get(image, "")) for image, name in names.items()}


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


def _groups(folders: Mapping[Place, Folder], *, asked: bool) -> Mapping[Place, str]:
    """Find the sub-folder of each patient: below kinds, and above those of visits and series.

    Where each has one image there is nothing to keep together, in one folder nothing to tell apart.
    """
    called = {image: next(filter(_is_patient, names), "") for image, names in folders.items() if names}
    numbered = {image: next(filter(_is_numbered, folders[image]), "") for image, name in called.items() if not name}
    above = {folders[image][: folders[image].index(name)] for image, name in numbered.items() if name}
    named = len(above) > len({*numbered.values()} - {""})  # kinds are few: these are patients, the numbers of visits
    if asked or named:
        numbered = {image: folders[image][0] if named or not name else name for image, name in numbered.items()}
    found = called | numbered
    count = Counter(found.values())
    return found if asked or (len(count) > 1 and max(count.values()) > 1 and "" not in count) else {}


def _is_patient(folder: str) -> bool:
    words = words_of(folder)
    return len(words) > 1 and PATIENT.fullmatch(words[0]) is not None


def _is_numbered(folder: str) -> bool:
    """Tell the name of a group, which is numbered, and not by a word for a kind."""
    words = words_of(folder)
    return any(map(str.isdigit, words)) and not any(map(KIND.fullmatch, words))
