"""Which entries of a folder are images, and why the others are not: nothing is passed over without a reason."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, islice, takewhile
from pathlib import Path

from medsegdiff.errors import some
from medsegdiff.io import picture
from medsegdiff.io.dicom_file import SUFFIXES as DICOM_SUFFIXES
from medsegdiff.io.dicom_file import is_dicom
from medsegdiff.io.dicom_single import images_among, is_whole
from medsegdiff.io.names import VOLUMES, composed

SUFFIXES = (*picture.SUFFIXES, *VOLUMES)
"""Endings of images that are read, in small letters."""
DOCUMENT = re.compile(
    r"\.(txt|md|rst|json|csv|tsv|xml|ya?ml|toml|html?|pdf|docx?|xlsx?|log|ini|inf|py|exe|sh|bat|md5|sha256)",
    re.IGNORECASE,
)
"""Ending of what lies beside images and is none."""
NOT_SHOWN = ("@eadir", "__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "lost+found", "#recycle", "@recycle")
"""What systems and file servers leave behind without a dot before it, in small letters."""


AS_MASKS = (
    "Polygons in .json (COCO, LabelMe) are not read: save them as PNG masks (labelme_export_json, or annToMask of "
    "pycocotools)."
)
POLYGON_KEYS = (b'"shapes"', b'"annotations"', b'"licenses"')
"""What is in the beginning of such a file, and of no other .json beside images."""
HEAD = 1 << 16
"""Bytes of it that are looked at."""
VOLUMES_ELSEWHERE = (".nrrd", ".nhdr", ".mha", ".mhd")
"""Endings of volumes that other programs write."""
AS_NIFTI = "NRRD and MetaImage are not read: save them as NIfTI (.nii.gz), in 3D Slicer say."


class Reason(StrEnum):
    """Why an entry of a folder is not among its images."""

    DANGLING = "a link that leads nowhere"
    FORMAT = "of a format that is not read"
    SLICE = "DICOM, whose series need a folder each"
    FOLDER = "a folder, which is not searched"
    AGAIN = "a folder that is read already, by another name"
    LOCKED = "may not be opened"
    SPECIAL = "neither file nor folder"
    ASIDE = "in no folder that data.image_dir or data.mask_dir names"
    STRAY = "in no folder of images"
    UNPAIRED = "a mask without an image"
    UNMARKED = "without a mask, and not named as images that have one"
    UNNAMED = "dataset.json does not tell of it"
    DOCUMENT = "a document"
    HIDDEN = "hidden"


QUIET = frozenset({Reason.DOCUMENT, Reason.HIDDEN})
"""Reasons that go without saying."""


@dataclass(frozen=True)
class LeftOut:
    """An entry of a folder that is not taken."""

    path: Path
    reason: Reason


@dataclass(frozen=True)
class Contents:
    """What a folder holds."""

    images: tuple[Path, ...] = ()
    """Files that are read, and folders with a DICOM series."""
    left_out: tuple[LeftOut, ...] = ()
    """All the rest."""


def list_images(folder: Path) -> Contents:
    """List the images of a folder and what else is in it, each sorted by name."""
    reasons = {path: _reason(path) for path in sorted(folder.iterdir())}
    images = tuple(path for path, reason in reasons.items() if reason is None)
    return Contents(images, tuple(LeftOut(path, reason) for path, reason in reasons.items() if reason is not None))


def folders_in(folder: Path) -> list[Path]:
    """List the folders in a folder; none that are hidden."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path))


def is_hidden(path: Path) -> bool:
    """Tell by its name whether an entry is no data of the user's."""
    return path.name.startswith(".") or path.name.lower() in NOT_SHOWN


def is_image_file(path: Path) -> bool:
    """Tell by its name whether a file is an image that is read."""
    return path.name.lower().endswith(SUFFIXES)


def is_series(path: Path) -> bool:
    """Tell whether a folder holds a DICOM series, or one DICOM file that is a whole image, and not more pictures."""
    if not path.is_dir():
        return False
    files = [inner for inner in path.iterdir() if inner.is_file() and not is_hidden(inner)]
    others = sorted(file for file in files if not is_image_file(file))
    enough = max(1, len(files) - len(others))
    dicom = filter(_holds_dicom, others)
    found = list(islice(dicom, enough))
    return len(found) >= enough and not _are_pictures(chain(found, dicom))


def _are_pictures(files: Iterable[Path]) -> bool:
    """Tell whether DICOM files are several images, by the first two of them."""
    return len(list(takewhile(bool, islice((whole for _, whole in images_among(files)), 2)))) > 1


def in_words(left_out: Iterable[LeftOut], *, most: int = 3) -> str:
    """Say in a line what was left out and why; nothing of what goes without saying."""
    told = [entry for entry in left_out if entry.reason not in QUIET]
    if not told:
        return ""
    reasons = dict.fromkeys(entry.reason for entry in told)
    parts = [f"{some(_names(told, reason), most=most)} ({reason})" for reason in reasons]
    return f"Left out of {_where(told)}: {'; '.join(parts)}."


def foreign(files: Iterable[Path]) -> str:
    """Say what to do about files in which other programs keep images or masks; nothing where there are none."""
    paths = list(files)
    polygons = AS_MASKS if any(_holds_polygons(path) for path in paths) else ""
    volumes = AS_NIFTI if any(path.suffix.lower() in VOLUMES_ELSEWHERE for path in paths) else ""
    return f"{polygons} {volumes}".strip()


def _holds_polygons(path: Path) -> bool:
    if path.suffix.lower() != ".json":
        return False
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError:
        return False
    return any(key in head for key in POLYGON_KEYS)


def _names(told: Sequence[LeftOut], reason: Reason) -> list[str]:
    return [composed(entry.path.name) for entry in told if entry.reason == reason]


def _where(told: Sequence[LeftOut]) -> str:
    folders = list(dict.fromkeys(composed(str(entry.path.parent)) for entry in told))
    return f"{some(folders, most=2)}, {len(told)} entries" if len(told) > 1 else folders[0]


def _reason(path: Path) -> Reason | None:
    """Find out why an entry is no image; ``None`` of an image."""
    if is_hidden(path):
        return Reason.HIDDEN
    try:
        if path.is_dir():
            return None if is_series(path) else Reason.FOLDER
        if not path.is_file():
            return Reason.DANGLING if path.is_symlink() else Reason.SPECIAL
        return None if is_image_file(path) else _reason_of_file(path)
    except PermissionError:
        return Reason.LOCKED


def _reason_of_file(path: Path) -> Reason | None:
    if DOCUMENT.fullmatch(path.suffix):
        return Reason.DOCUMENT
    if not _holds_dicom(path):
        return Reason.FORMAT
    return None if is_whole(path) else Reason.SLICE


def _holds_dicom(file: Path) -> bool:
    """Tell whether a file is DICOM: its ending promises it, or its content says so."""
    if file.suffix.lower() in DICOM_SUFFIXES:
        return True
    return not DOCUMENT.fullmatch(file.suffix) and is_dicom(file)
