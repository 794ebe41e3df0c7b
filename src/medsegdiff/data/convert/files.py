"""What conversion finds in a data set, and the files that it writes."""

from __future__ import annotations

import csv
import io
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from jaxtyping import Float, UInt8, UInt16
from nibabel.nifti1 import Nifti1Header
from PIL import ExifTags, Image

from medsegdiff.config.data import DataConfig, Modality
from medsegdiff.data.convert.labels import combination
from medsegdiff.data.dataset import CaseFiles, Listing, Track
from medsegdiff.data.masks import Stored, missing_structures
from medsegdiff.data.scan import Scan, check_channels_alike, scan, unlabelled
from medsegdiff.data.split import Entry
from medsegdiff.errors import ConfigError, DataError, some
from medsegdiff.io.atomic import atomic_path, write_text
from medsegdiff.io.names import folder_name
from medsegdiff.labels import Labels
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


UNFINISHED = ".unfinished"
"""Folder within the new one in which a data set lies until it is whole."""
LOCK = ".unfinished.lock"
"""File beside it that who writes there holds; of a process that was killed nobody holds it."""


@contextmanager
def unfinished(out: Path) -> Iterator[Path]:
    """Give a folder to write to; what is in it moves to ``out`` when all is there, and is taken for nothing before.

    Images come last, and a description after them: a data set without is refused by every reader.
    """
    folder = out / UNFINISHED
    with _held(out):
        shutil.rmtree(folder, ignore_errors=True)  # of a conversion that was killed
        folder.mkdir(parents=True)
        try:
            yield folder
            for path in sorted(folder.iterdir(), key=lambda path: (path.suffix == ".json", "images" in path.name)):
                path.rename(out / path.name)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _held(out: Path) -> Iterator[None]:
    """Write to a folder alone: another conversion would remove what this one has written."""
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ConfigError(f"{out}: another conversion writes there now. Wait for it, or give another folder.") from None
    try:
        check_out(out)  # what another has written while this one looked at the data
        yield
    finally:
        lock.release()
        with suppress(OSError):  # the folder goes too where nothing is in it
            (out / LOCK).unlink(missing_ok=True)
            out.rmdir()


def check_out(out: Path) -> None:
    """Refuse to write among other files."""
    if out.exists() and (not out.is_dir() or any(path.name not in (UNFINISHED, LOCK) for path in out.iterdir())):
        raise ConfigError(f"{out}: exists and is not empty; allowed is a new or an empty folder. Give another.")


def safe(name: str) -> str:
    """Make a name of a case or a class into that of a file."""
    return re.sub(r'[\\/:*?"<>|\s]+', "_", name)


def check_names(names: Iterable[str], *, of: str = "cases") -> None:
    """Refuse cases whose files would overwrite each other, or classes or raters whose folders would."""
    count = Counter(safe(name) for name in names)
    if twice := sorted(name for name, times in count.items() if times > 1):
        raise DataError(f"Several {of} would be written as {some(twice)}. Rename them.")


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


@dataclass(frozen=True)
class Survey:
    """A data set whose files were looked through once."""

    scan: Scan
    config: DataConfig
    broken: dict[str, str]
    """Case → what is wrong."""
    labels: Labels | None
    """What mask values mean; ``None`` where there are no masks."""
    combinations: frozenset[int]
    """Of structures: which of them occur in one pixel, a bit for each."""
    only_foreground: bool = False

    @property
    def listing(self) -> Listing:
        """The files."""
        return self.scan.listing

    @property
    def cases(self) -> list[CaseFiles]:
        """Those that can be read."""
        return [self.listing.cases[name] for name in self.scan.sound]

    @property
    def channels(self) -> int:
        """Most image channels of a case; of volumes, those of each."""
        return self.scan.channels

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Of the image channels, where somebody tells: the user, the data set or its files."""
        return self.scan.modalities(self.config)

    @property
    def volumes(self) -> bool:
        """Whether the images have three axes of space."""
        return self.listing.volumes

    @property
    def ignores(self) -> bool:
        """Whether there are pixels that nobody labelled."""
        return self.labels is not None and self.labels.ignore in self.scan.values

    def masks_of(self, case: CaseFiles) -> tuple[UInt8[np.ndarray, "r k *s"], UInt8[np.ndarray, "r *s"] | None] | None:
        """Read the masks of a case."""
        if self.labels is None or not self.listing.masks.files(case.name):
            return None
        stored = self.listing.masks.stored(case.name)
        return self.listing.masks.coded(stored, self.labels), self.listing.masks.ignored(stored, self.labels)


@dataclass
class Target:
    """How a layout is written."""

    write: Callable[[CaseFiles, CaseOutput], list[str]]
    """Write a case; the names it has in the new layout are given."""
    finish: Callable[[Sequence[CaseFiles]], None] = lambda done: None
    """Write what describes them all."""
    group: Callable[[CaseFiles], str] = lambda case: ""
    """The group of a case that names none."""
    describes_parts: bool = False
    """Whether the layout itself puts cases into parts, so that ``split.csv`` has to say where the source does not."""
    notes: list[str] = field(default_factory=list)


def survey(listing: Listing, config: DataConfig, *, only_foreground: bool, track: Track) -> Survey:
    """Look at every case: whether it can be read, its grid, its channels, the values of its masks."""
    masks = listing.masks
    broken = dict.fromkeys(unlabelled(listing), "the image has no mask") if masks.names else {}
    lacking = masks.incomplete(set(masks.names) & set(listing.cases))
    said = missing_structures(lacking)
    broken |= {name: f"masks are missing: {text}" for name, text in zip(lacking, said, strict=True)}
    combinations: set[int] = set()

    def combine(case: CaseFiles, stored: Stored) -> None:
        if masks.kind == "structures" and stored:
            held = np.stack([masks.structures(values) for _, values in stored])
            combinations.update(np.unique(combination(held)).tolist())

    found = scan(listing, config, set(listing.cases) - set(broken), track=track, also=combine)
    broken |= {name: str(problem) for name, problem in found.problems.items()}
    if listing.volumes:
        check_channels_alike(found)
    labels = found.labels(config) if found.values else None
    return Survey(found, config, broken, labels, frozenset(combinations), only_foreground)


def source_name(path: Path) -> str:
    """Name a data set after its folder or file."""
    return path.stem if path.is_file() else folder_name(path)
