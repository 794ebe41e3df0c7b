"""Files of a case in a new layout: copied byte by byte where their format fits, else written anew."""

from __future__ import annotations

import csv
import io
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8, UInt16
from nibabel.nifti1 import Nifti1Header
from PIL import ExifTags, Image

from medsegdiff.data.split import Entry
from medsegdiff.errors import ConfigError, DataError, some
from medsegdiff.io.atomic import atomic_path, write_text
from medsegdiff.io.image import image_name
from medsegdiff.types import Geometry

PLAIN_MODES = {"L": 1, "I;16": 1, "RGB": 3}
"""Pillow's names for PNG that every reader takes as we do, with their channels."""
VOLUME, PICTURE = ".nii.gz", ".png"
"""Endings of what is written."""


class CaseOutput:
    """The files written for a case, so that they can be removed if it breaks on the way."""

    def __init__(self, root: Path) -> None:
        """Start with none."""
        self.root = root
        self.paths: list[Path] = []

    def path(self, folder: str, name: str) -> Path:
        """Note a file that is about to be written."""
        path = self.root / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self.paths.append(path)
        return path

    def remove(self) -> None:
        """Remove what was written, and folders that are empty then."""
        for path in self.paths:
            path.unlink(missing_ok=True)
            with suppress(OSError):
                path.parent.rmdir()
                self.root.rmdir()


def check_out(out: Path) -> None:
    """Refuse to write among other files."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: exists and is not empty; allowed is a new or an empty folder. Give another.")


def safe(name: str) -> str:
    """Make a name of a case or a class into that of a file."""
    return re.sub(r'[\\/:*?"<>|\s]+', "_", name)


def check_names(names: Iterable[str]) -> None:
    """Refuse cases whose files would overwrite each other."""
    count = Counter(safe(name) for name in names)
    if twice := sorted(name for name, times in count.items() if times > 1):
        raise DataError(f"Several cases would be written as {some(twice)}. Rename them.")


def ending_of(path: Path) -> str:
    """Split the ending from a file."""
    return path.name[len(image_name(path)) :]


def copy(path: Path, where: Path) -> None:
    """Copy the bytes of a file, so that it is whole or not there."""
    with atomic_path(where) as part:
        shutil.copyfile(path, part)


def is_plain_volume(path: Path, geometry: Geometry, *, axes: Sequence[int]) -> bool:
    """Tell whether a file is a gzipped NIfTI of so many axes, which can be copied."""
    if not path.name.lower().endswith(VOLUME) or not isinstance(geometry.header, Nifti1Header):
        return False
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b" and len(geometry.header.get_data_shape()) in axes


def is_plain_picture(path: Path, channels: int) -> bool:
    """Tell whether a file is a PNG that shows to every reader the pixels we read, so that it can be copied."""
    if path.suffix.lower() != PICTURE:
        return False
    with Image.open(path) as picture:
        turned = picture.getexif().get(ExifTags.Base.Orientation, 1) != 1
        fits = PLAIN_MODES.get(picture.mode) == channels and picture.format == "PNG"
        return fits and not turned and "transparency" not in picture.info


def write_picture(path: Path, image: Float[np.ndarray, "c h w"]) -> None:
    """Write a picture as PNG without losing anything."""
    pixels = _whole(image, 255, np.uint8)
    if pixels is None and len(image) == 1:
        pixels = _whole(image, 65535, np.uint16)
    if pixels is None or len(image) not in (1, 3):
        raise DataError(
            f"PNG holds 1 or 3 channels of 8 bits or 1 of 16; the image has {len(image)} from {image.min():g} to "
            f"{image.max():g}. Save it as 8-bit PNG, or as NIfTI."
        )
    with atomic_path(path) as part:
        Image.fromarray(pixels[0] if len(image) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(part)


def _whole(
    image: Float[np.ndarray, "c h w"], top: int, dtype: type[np.uint8] | type[np.uint16]
) -> UInt8[np.ndarray, "c h w"] | UInt16[np.ndarray, "c h w"] | None:
    """Undo the scaling of whole numbers to 0 … 1; ``None`` if that is not where the image comes from."""
    scaled = image.astype(np.float64) * top
    rounded = np.rint(scaled)
    exact = rounded.min() >= 0 and rounded.max() <= top and np.abs(scaled - rounded).max() < 0.01
    return rounded.astype(dtype) if exact else None


def write_parts(file: Path, rows: Sequence[Entry], *, always: bool) -> None:
    """Write ``split.csv``: parts and groups, as far as they are known."""
    told, grouped = any(row.part for row in rows), any(row.group for row in rows)
    if not (told or grouped or always):
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "split", "patient"] if told else ["id", "patient"])
    for row in sorted(rows, key=lambda row: row.name):
        group = row.group or row.name
        writer.writerow([row.name, row.part or "train", group] if told else [row.name, group])
    write_text(file, text.getvalue())
