"""What the folders above files say of them: image or mask, part, and the sub-folders that belong to the case."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePosixPath

from medsegdiff.data.layouts.trees.words import PART_WORDS, FolderName, Role, folder_name, key_of, mask_names, words_of
from medsegdiff.io.listing import SUFFIXES

Folder = tuple[str, ...]
"""The path of a folder, name by name."""


@dataclass(frozen=True)
class Place:
    """A file, and what the folders above it say."""

    path: str
    role: Role = ""
    part: str = ""
    """``train``, ``val`` or ``test``; empty where no folder says."""
    source: str = ""
    """The folder that says image or mask."""
    before: Folder = ()
    """Sub-folders above that one …"""
    after: Folder = ()
    """… and below it: they say nothing but whose the file is."""

    @cached_property
    def stem(self) -> str:
        """The name without what tells the format."""
        name = self.path.rstrip("/").rpartition("/")[2]
        ending = next((ending for ending in ENDINGS if name.lower().endswith(ending)), "")
        return name[: len(name) - len(ending)]

    @property
    def kind(self) -> str:
        """The name of the folder that says image or mask, without the part of the split: ``train_masks`` → masks."""
        name = self.source.rpartition("/")[2]
        words = words_of(name)
        kept = [word for word in words if word not in PART_WORDS]
        return name if kept == words else "_".join(kept)

    @property
    def folder(self) -> str:
        """Where it lies."""
        return self.path.rstrip("/").rpartition("/")[0]

    @property
    def within(self) -> Folder:
        """The sub-folders, above and below the one that says image or mask."""
        return self.before + self.after

    @property
    def shelf(self) -> tuple[str, Folder]:
        """What an image and its masks have in common, beside the name."""
        return self.part, keys_of(self.within)


ENDINGS = sorted((*(f".ome{ending}" for ending in (".tif", ".tiff")), *SUFFIXES), key=len, reverse=True)
"""What is no part of a name, the longest first."""


def keys_of(folders: Folder) -> Folder:
    """Bring names to the form in which they are compared."""
    return tuple(map(key_of, folders))


def placed(paths: Sequence[str], *, image_dir: str | None = None, mask_dir: str | None = None) -> list[Place]:
    """Understand the folders above files; where the user names one for images or masks, no other holds them."""
    above = {path: PurePosixPath(path.rstrip("/")).parts[:-1] for path in paths}
    asked: dict[Role, Folder] = {"image": _given(image_dir), "mask": _given(mask_dir)}
    every = {up for folders in above.values() for up in _upwards(folders)}
    names = {folder: _name_of(folder, asked) for folder in every}
    heard = _heard(names, above)
    found = [_place(path, folders, heard) for path, folders in above.items()]
    if not image_dir and not any(place.role == "image" for place in found):
        heard |= {folder: replace(heard[folder], role="image") for folder in _beside_masks(found, heard)}
        found = [_place(path, folders, heard) for path, folders in above.items()]
    return found


def _upwards(folder: Folder) -> list[Folder]:
    """List a folder and all around it, the innermost first."""
    return [folder[:end] for end in range(len(folder), 0, -1)]


def _given(folder: str | None) -> Folder:
    return () if folder is None else keys_of(PurePosixPath(folder.strip("/")).parts)


def _name_of(folder: Folder, asked: Mapping[Role, Folder]) -> FolderName:
    found = folder_name(folder[-1])
    for role, wanted in asked.items():
        if wanted and keys_of(folder[-len(wanted) :]) == wanted:
            return replace(found, role=role)
    return replace(found, role="aside") if asked.get(found.role) else found


def _heard(names: Mapping[Folder, FolderName], above: Mapping[str, Folder]) -> dict[Folder, FolderName]:
    """Keep what folders say but where "masks" is a topic.

    That is so of folders around all files and around others that say more, and of those of a case (``label_3``), which
    are told by what they hold or by a folder around them.
    """
    files = list(above.values())
    around = {up for folder, name in names.items() if name.role and not name.numbered for up in _upwards(folder)[1:]}
    common = {up for up in _upwards(min(files)) if max(files)[: len(up)] == up} if files else set()
    topics = around | common | _of_a_case(names, above)
    heard = {
        folder: replace(name, role="") if name.role == "mask" and folder in topics else name
        for folder, name in names.items()
    }
    below = {f for f, name in heard.items() if name.numbered and any(heard[up].role for up in _upwards(f)[1:])}
    return heard | {folder: replace(heard[folder], role="") for folder in below}


def _of_a_case(names: Mapping[Folder, FolderName], above: Mapping[str, Folder]) -> set[Folder]:
    """Find numbered folders that hold files with a word for a mask beside files without one."""
    marked: dict[Folder, set[bool]] = defaultdict(set)
    for path, folders in above.items():
        for up in (up for up in _upwards(folders) if names[up].numbered):
            marked[up].add(bool(mask_names(Place(path).stem)))
    return {folder for folder, kinds in marked.items() if len(kinds) > 1}


def _place(path: str, folders: Folder, heard: Mapping[Folder, FolderName]) -> Place:
    """Read the folders above a file: the innermost that says image or mask decides."""
    around = _upwards(folders)
    saying = next((up for up in around if heard[up].role), ())
    part = next((heard[up].part for up in around if heard[up].part), "")
    silent = [up for up in reversed(around) if not folder_name(up[-1]).speaks and up != saying]
    return Place(
        path,
        role=heard[saying].role if saying else "",
        part=part,
        source="/".join(saying),
        before=tuple(up[-1] for up in silent if len(up) <= len(saying) or not saying),
        after=tuple(up[-1] for up in silent if len(up) > len(saying) and saying),
    )


def _beside_masks(places: Sequence[Place], heard: Mapping[Folder, FolderName]) -> set[Folder]:
    """Find folders that lie beside one of masks and hold files of the same names, where none says it holds images.

    Where such a folder is a part (``train`` beside ``train_masks``), the other parts beside it hold images, too.
    """
    masks: dict[Folder, set[str]] = defaultdict(set)
    below: dict[Folder, set[str]] = defaultdict(set)
    for place in (place for place in places if place.role == "mask"):
        for folder in _upwards(tuple(place.source.split("/"))):
            if folder_name(folder[-1]).role == "mask" or "/".join(folder) == place.source:
                masks[folder[:-1]] |= {key_of(name) for name in (place.stem, *(n.of for n in mask_names(place.stem)))}
                below[folder[:-1]] |= set(keys_of(place.after))
    found = set()
    for place in (place for place in places if not place.role):
        folder = tuple(place.folder.split("/")) if place.folder else ()
        if folder and key_of(place.stem) in masks[folder[:-1]] and key_of(folder[-1]) not in below[folder[:-1]]:
            found.add(folder)
    beside = {folder[:-1] for folder in found if heard[folder].part}
    return found | {folder for folder, name in heard.items() if name.part and not name.role and folder[:-1] in beside}
