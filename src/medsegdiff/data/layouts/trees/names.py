"""What cases of a tree are called, and which of them stay together in one part of the split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from medsegdiff.config.data import ImageFolders
from medsegdiff.data.layouts.trees.places import Folder, Place
from medsegdiff.data.layouts.trees.words import CENTRE, KIND, PATIENT, PATIENT_OR_NOT, bare_image, key_of, words_of
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
    called = {image: _until(_is_patient, names) for image, names in folders.items() if names}
    numbered = {image: _until(_is_numbered, folders[image]) for image, path in called.items() if not path}
    above = {tuple(filter(_is_no_centre, path[:-1])) for path in numbered.values() if path}
    if len(above) > len({path[-1] for path in numbered.values() if path}):
        # kinds are few: these are patients, and the numbers those of visits
        numbered = {image: _until(_is_no_centre, folders[image]) for image in numbered}
    found = {image: _in_centre(path) for image, path in (called | numbered).items()}
    if asked:
        found |= _without_visits({image: folders[image] for image, group in found.items() if not group})
    count = Counter(found.values())
    return found if asked or (len(count) > 1 and max(count.values()) > 1 and "" not in count) else {}


def _until(wanted: Callable[[str], bool], names: Folder) -> Folder:
    """Cut a path behind the first folder that is wanted; nothing where none is."""
    return next((names[: end + 1] for end, name in enumerate(names) if wanted(name)), ())


def _in_centre(path: Folder) -> str:
    """Name a patient after the last folder of a path, and the centres above it: each counts its patients anew."""
    return "/".join((*filter(_is_centre, path[:-1]), *path[-1:]))


def _without_visits(paths: Mapping[Place, Folder]) -> Mapping[Place, str]:
    """Name groups after whole paths, without folders at the end whose names recur below others: visits and series."""
    while _recur({path for path in paths.values() if len(path) > 1}):
        paths = {image: path[:-1] or path for image, path in paths.items()}
    return {image: "/".join(path) for image, path in paths.items()}


def _recur(paths: Iterable[Folder]) -> bool:
    """Tell whether half of the folders at the ends of paths, or more, have others of their names elsewhere."""
    count = Counter(path[-1] for path in paths)
    return bool(count) and 2 * sum(times > 1 for times in count.values()) >= len(count)


def _is_patient(folder: str) -> bool:
    """Tell a folder that is called as a patient, wherever that word stands: ``patient_A``, ``site1_patient07``."""
    return any(
        PATIENT.fullmatch(word) or (PATIENT_OR_NOT.fullmatch(word) and (behind.isdigit() or len(behind) == 1))
        for word, behind in pairwise(words_of(folder))
    )


def _is_numbered(folder: str) -> bool:
    """Tell the name of a group, which has a number that is not that of a kind: ``07``, ``center_1_003``."""
    return any(word.isdigit() and not KIND.fullmatch(before) for before, word in pairwise(("", *words_of(folder))))


def _is_centre(folder: str) -> bool:
    """Tell the name of a centre from that of its patient."""
    return any(map(CENTRE.fullmatch, words_of(folder))) and not (_is_patient(folder) or _is_numbered(folder))


def _is_no_centre(folder: str) -> bool:
    return not _is_centre(folder)
