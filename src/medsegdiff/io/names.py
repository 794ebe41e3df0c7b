"""What cases and classes are called: one place gives them names that can be shown, compared and written as files."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from medsegdiff.errors import DataError, some

VOLUMES = (".nii", ".nii.gz")
"""Endings of volumes, in small letters."""
REFUSED = re.compile(r'[\\/:*?"<>|]+')
"""What some file system does not allow in a name."""
SPELLING = re.compile(r"""[(),;'\[\]{}]|(?<!\d)[\s_.]+|[\s_.]+(?!\d)|(?<=[^\W\d])-(?=\w)|(?<=\w)-(?=[^\W\d])""")
"""What only joins words: between figures it tells numbers apart (1.1, 11), and a last + or - is a sign (CD8+, CD8-)."""
JOINERS = "\u200c\u200d"
"""Can't be seen, but words of several languages are spelt with them."""


def case_name(given: str, *, where: object) -> str:
    """Give a case its name, of which its files are called; ``where`` it was told is named if it can't be one."""
    name = composed(given)
    if not name.strip() or name.startswith(".") or "\\" in name or Path(name).name != name:
        raise DataError(
            f"{where}: a case is named '{name}', but its results are files of that name. Allowed are names that do not "
            "begin with a dot and hold no / or \\. Rename it."
        )
    return name


def image_name(path: Path) -> str:
    """Name a case after its file, or after the folder of its series."""
    return composed(_stem(path)).replace("\\", "%5C")


def ending_of(path: Path) -> str:
    """Split the ending from a file."""
    return path.name[len(_stem(path)) :]


def folder_name(path: Path) -> str:
    """Tell what a folder is called: by the name of a link to it, not by that of its target."""
    return path.resolve().name if path.name in ("", "..") else path.name


def class_folders(classes: Sequence[str]) -> tuple[str, ...]:
    """Name the folder of each class; refuse classes that would share one, or whose folder would lie elsewhere."""
    folders = tuple(file_name(name) for name in classes)
    if wrong := [name for name, folder in zip(classes, folders, strict=True) if not folder.strip() or folder[0] == "."]:
        raise DataError(f"A class is named '{wrong[0]}', but its masks get a folder of that name. Rename the class.")
    shared = {folder for folder, count in Counter(folders).items() if count > 1}
    if twice := [f"'{name}'" for name, folder in zip(classes, folders, strict=True) if folder in shared]:
        raise DataError(
            f"The classes {some(twice)} would share the folder '{sorted(shared)[0]}', so that masks overwrite each "
            "other. Rename one of them."
        )
    return folders


def file_name(name: str) -> str:
    """Make a name that every file system takes."""
    return REFUSED.sub("-", composed(name))


def letters(name: str) -> str:
    """Write what tells one name from another however it is spelt: letters, figures and signs, in small letters."""
    return SPELLING.sub("", file_name(name).casefold())


def spelt_alike(names: Collection[str], known: Collection[str]) -> dict[str, str]:
    """Find for each name the known one that is equal, or else the only one that is spelt alike; each at most once."""
    given, own = _by_letters(names), _by_letters(known)
    alike = {given[key][0]: own[key][0] for key in given if len(given[key]) == len(own.get(key, ())) == 1}
    return alike | {name: name for name in names if name in known}


def _by_letters(names: Collection[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(letters(name), []).append(name)
    return found


def composed(text: str) -> str:
    """Write a name in one way: letters joined with their accents, and what can't be shown as its bytes (``%FC``)."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if _is_shown(c) else _bytes_of(c) for c in unicodedata.normalize("NFC", text))


def _is_shown(character: str) -> bool:
    return character.isprintable() or character in JOINERS or unicodedata.category(character) == "Zs"


def _bytes_of(character: str) -> str:
    stray = "\udc80" <= character <= "\udcff"  # how Python keeps a byte of a name that is not UTF-8
    return "".join(f"%{b:02X}" for b in character.encode("utf-8", "surrogateescape" if stray else "surrogatepass"))


def _stem(path: Path) -> str:
    if path.is_dir():
        return folder_name(path)
    return volume_name(path) if is_volume(path) else path.stem


def is_volume(path: Path) -> bool:
    """Tell by its name whether a file is a volume."""
    return path.name.lower().endswith(VOLUMES)


def volume_name(path: Path) -> str:
    """Name a case after its file."""
    check_volume_name(path)
    return path.name[: path.name.lower().rindex(".nii")]


def check_volume_name(path: Path) -> None:
    """Refuse a name that no volume has."""
    if not is_volume(path):
        raise DataError(f"{path}: not the name of a volume. Allowed: {', '.join(VOLUMES)}; rename the file.")
