"""What is sent: named safely, unpacked within limits, looked at before it waits for a model."""

from __future__ import annotations

import hashlib
import shutil
import stat
import zipfile
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, runtime_checkable

from medsegdiff.errors import DataError, MedSegDiffError
from medsegdiff.io.atomic import is_full
from medsegdiff.io.dicom_file import SUFFIXES as DICOM
from medsegdiff.io.dicom_file import inflated_size, is_dicom
from medsegdiff.io.dicom_single import is_whole
from medsegdiff.io.image import read_geometry
from medsegdiff.io.listing import SUFFIXES
from medsegdiff.io.names import file_name
from medsegdiff.server.limits import Limits
from medsegdiff.server.problems import Refusal

CHUNK = 1 << 20
LONGEST = 80
"""Letters of a name that are kept."""
RESERVED = {"con", "prn", "aux", "nul", *(f"{kind}{n}" for kind in ("com", "lpt") for n in range(10))}
"""Names of devices, which some systems do not give to files."""
ALLOWED = f"Allowed are {', '.join(SUFFIXES)}, DICOM series as ZIP or several files, and ZIP of these."


@runtime_checkable
class Source(Protocol):
    """Bytes that are read once."""

    def read(self, size: int = -1, /) -> bytes:
        """Give some."""


Given = tuple[str, Any]
"""A file as it is sent: its name, and the file, open."""


def receive(files: Iterable[Given], folder: Path, limits: Limits) -> list[Path]:
    """Write what is sent into a folder, and give the images: files, and a folder for each DICOM series.

    Nothing is written elsewhere, whatever names say. Archives are unpacked, but not those in them.
    """
    taking = _Taking(folder, limits)
    try:
        for name, source in files:
            taking.take(name, source)
    except OSError as error:
        if is_full(error):
            raise Refusal(503, "The server's disk is full. Try again later.", retry_after=600.0) from error
        raise
    images = [*taking.pictures, *taking.series()]
    if not images:
        raise Refusal(415, f"There is no image in what was sent. {ALLOWED}")
    for image in images:
        _check(image, limits)
    return images


class _Taking:
    """Takes files one by one."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder, self.limits = folder, limits
        self.pictures: list[Path] = []
        self.slices: list[tuple[str, Path]] = []
        self.bytes = self.count = 0

    def take(self, name: str, source: Any) -> None:
        """Take a file, or all of an archive."""
        if zipfile.is_zipfile(source):
            source.seek(0)
            self._unpack(source)
            return
        source.seek(0)
        self._write(name, source)

    def _unpack(self, source: Any) -> None:
        """Take the files of an archive; what is wrong with one that is damaged may be anything."""
        try:
            with zipfile.ZipFile(source) as archive:
                for inner, opened in _unpacked(archive):
                    self._write(inner, opened)
        except (Refusal, MedSegDiffError, MemoryError):
            raise
        except Exception as error:
            if is_full(error):
                raise
            raise Refusal(422, f"The archive can't be unpacked ({error}). Pack it anew, without a password.") from error

    def series(self) -> list[Path]:
        """Put slices into a folder for each series, and files that are whole images into folders of their own."""
        by_place: dict[str, list[Path]] = defaultdict(list)
        for place, path in self.slices:
            by_place[_own(path, by_place) if is_whole(path) else place].append(path)
        return [self._together(place, paths) for place, paths in by_place.items()]

    def _together(self, place: str, paths: Sequence[Path]) -> Path:
        folder = self._free(safe_name(PurePosixPath(place).name) if place else "series")
        folder.mkdir()
        for path in paths:
            path.rename(folder / path.name)
        return folder

    def _write(self, name: str, source: Source) -> None:
        self.count += 1
        if self.count > self.limits.files:
            raise Refusal(413, f"More than {self.limits.files} files were sent. Send fewer at a time.")
        path = self._free(safe_name(PurePosixPath(name.replace("\\", "/")).name))
        with path.open("xb") as target:
            while chunk := source.read(CHUNK):
                self.bytes += len(chunk)
                if self.bytes > self.limits.upload:
                    raise Refusal(413, too_large(self.limits))
                target.write(chunk)
        self._sort(name, path)

    def _sort(self, name: str, path: Path) -> None:
        """Tell images from slices of a series, by name and by mark; pass over what lies beside images in archives."""
        if path.name.lower().endswith(SUFFIXES):
            self.pictures.append(path)
        elif path.name.lower().endswith(DICOM) or is_dicom(path):
            self._count_inflated(path)
            self.slices.append((str(PurePosixPath(name.replace("\\", "/")).parent).strip("./"), path))
        else:
            path.unlink()

    def _count_inflated(self, path: Path) -> None:
        """Count what a DICOM file unpacks to, before anybody does that to read its header."""
        with suppress(DataError):  # of one that is damaged is told later
            self.bytes += inflated_size(path, most=self.limits.upload - self.bytes) if is_dicom(path) else 0
        if self.bytes > self.limits.upload:
            raise Refusal(413, too_large(self.limits))

    def _free(self, name: str) -> Path:
        """Find a name that is not taken."""
        path, number = self.folder / name, 1
        while path.exists():
            number += 1
            ending = next((end for end in SUFFIXES if name.lower().endswith(end)), "")
            path = self.folder / f"{name[: len(name) - len(ending)]}_{number}{name[len(name) - len(ending) :]}"
        return path


def _own(path: Path, taken: Collection[str]) -> str:
    """Name a place for a file that is a whole image."""
    name = path.stem if path.suffix.lower() in DICOM else path.name
    return f"{name}/" if f"{name}/" not in taken else f"{name}_{len(taken) + 1}/"


def _unpacked(archive: zipfile.ZipFile) -> Iterator[Given]:
    for entry in archive.infolist():
        linked = stat.S_ISLNK(entry.external_attr >> 16)
        if entry.is_dir() or linked or PurePosixPath(entry.filename).name.startswith("."):
            continue
        with archive.open(entry) as opened:
            yield entry.filename, opened


def safe_name(name: str) -> str:
    """Make a name of a file that is that of nothing else on any system."""
    cleaned = file_name(name).strip().strip(".").replace("..", ".") or "image"
    ending = next((end for end in SUFFIXES if cleaned.lower().endswith(end)), "")
    stem = _cut(cleaned[: len(cleaned) - len(ending)].encode("utf-8", "ignore").decode()).strip(". ") or "image"
    return f"{stem}_{ending}" if stem.lower() in RESERVED else f"{stem}{cleaned[len(cleaned) - len(ending) :]}"


def _cut(stem: str) -> str:
    """Cut a long name, so that it is still another one than others that begin like it."""
    if len(stem) <= LONGEST:
        return stem
    mark = hashlib.sha256(stem.encode()).hexdigest()[:8]
    return f"{stem[: LONGEST - 1 - len(mark)]}-{mark}"


def too_large(limits: Limits) -> str:
    """Say how much may be sent."""
    return f"What was sent is larger than {limits.upload / 1e6:.4g} MB, packed or unpacked. Send less at a time."


def _check(image: Path, limits: Limits) -> None:
    """Look at the header of an image."""
    try:
        geometry, channels = read_geometry(image)
    except MedSegDiffError as error:
        raise Refusal(422, str(error).replace(str(image), image.name).replace(str(image.parent), "")) from error
    voxels = channels
    for length in geometry.shape:
        voxels *= length
    if voxels > limits.voxels:
        raise Refusal(413, f"{image.name} has {voxels} voxels; allowed are {limits.voxels}. Send a smaller one.")


def remove(folder: Path) -> None:
    """Remove a folder, fine where there is none."""
    shutil.rmtree(folder, ignore_errors=True)
