"""Series that came over the network, as folders: what is there, and what became of it, whoever was killed in between.

``INBOX/SERIES/images/`` holds the images of a series by their UIDs, ``results/`` what was made of them, ``made.json``
of which images that was and which files are delivered, ``done.json`` how it ended. Names are UIDs: nothing tells whose
images they are.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from medsegdiff.io.atomic import atomic_path, flush, flush_names, remove_parts, write_json
from medsegdiff.io.hashes import sha256_of

IMAGES, RESULTS, MADE, DONE, TRIED = "images", "results", "made.json", "done.json", "tried.json"
UID = re.compile(r"[0-9.]{1,64}")
MOST_TRIES = 2
"""Of a series; one that takes the program with it twice is given up."""


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


Told = TypeVar("Told", bound=_Stored)


class Made(_Stored):
    """What was made, and where it is by now."""

    images: tuple[str, ...]
    files: Mapping[str, str]
    """What is sent, in this order: its place among the results, and its SHA-256."""
    failed: Mapping[str, str] = {}
    """Image of which nothing was made → why."""
    delivered: tuple[str, ...] = ()
    """``FILE to WHOM``."""

    def left(self, whom: str) -> dict[str, str]:
        """Tell which files somebody has not got yet."""
        return {file: sha256 for file, sha256 in self.files.items() if _delivery(file, whom) not in self.delivered}


class Done(_Stored):
    """How a series ended."""

    state: Literal["delivered", "failed"]
    images: tuple[str, ...]
    at: float
    error: str = ""
    failed: Mapping[str, str] = {}
    """Image that could not be segmented, of a series of which others could → why."""
    came: float = 0.0
    """When the last image had come that was there."""


class _Tried(_Stored):
    images: tuple[str, ...]
    times: int = 0


@dataclass(frozen=True)
class Series:
    """A series in its folder."""

    folder: Path

    @property
    def uid(self) -> str:
        """Its name, unique in the world."""
        return self.folder.name

    @property
    def where(self) -> Path:
        """Folder of the images."""
        return self.folder / IMAGES

    @property
    def results(self) -> Path:
        """Folder of the results."""
        return self.folder / RESULTS

    @property
    def images(self) -> tuple[str, ...]:
        """What is there, whole."""
        found = self.where.iterdir() if self.where.is_dir() else ()
        return tuple(sorted(path.name for path in found if not path.name.startswith(".")))

    @property
    def came(self) -> float:
        """When the last image came, whether it was here before or not."""
        try:
            return self.where.stat().st_mtime
        except OSError:
            return 0.0

    @property
    def missing(self) -> int:
        """How many images were here when it ended, and are no more."""
        ended = self.done
        return 0 if ended is None else len({*ended.images} - {*self.images})

    @property
    def made(self) -> Made | None:
        """What was made; nothing of other images than those that are there."""
        found = _read(self.folder / MADE, Made)
        return found if found is not None and found.images == self.images else None

    @property
    def done(self) -> Done | None:
        """How it ended, if it did."""
        return _read(self.folder / DONE, Done)

    @property
    def settled(self) -> bool:
        """Whether nothing is to be done: all that is there was there when it ended; if it failed, none came again."""
        ended = self.done
        if ended is None or not set(self.images) <= set(ended.images):
            return False
        return ended.state == "delivered" or not self.images or self.came == ended.came

    def begin(self, images: tuple[str, ...]) -> bool:
        """Count an attempt before it is made; ``False``: it took the program with it too often."""
        before = _read(self.folder / TRIED, _Tried)
        times = before.times if before is not None and before.images == images else 0
        if times >= MOST_TRIES:
            return False
        write_json(self.folder / TRIED, _Tried(images=images, times=times + 1).model_dump())
        shutil.rmtree(self.results, ignore_errors=True)
        return True

    def forget_attempt(self) -> None:
        """Count attempts anew: the program has not died of the last one."""
        (self.folder / TRIED).unlink(missing_ok=True)

    def finish(self, images: tuple[str, ...], files: Sequence[Path], failed: Mapping[str, str]) -> None:
        """Record that results are whole, once they are on the disk."""
        for file in files:
            flush(file)
        for folder in {self.folder, self.results, *(file.parent for file in files)}:
            flush_names(folder)
        sent = {file.relative_to(self.results).as_posix(): sha256_of(file) for file in files}
        write_json(self.folder / MADE, Made(images=images, files=sent, failed=failed).model_dump())
        self.forget_attempt()

    def result(self, file: str, sha256: str) -> Path | None:
        """Find a file that was made; nothing if it is no longer what it was."""
        path = self.results / file
        try:
            return path if sha256_of(path) == sha256 else None
        except FileNotFoundError:
            return None

    def discard(self) -> None:
        """Forget that results were made: they are to be made again."""
        (self.folder / MADE).unlink(missing_ok=True)

    def deliver(self, file: str, whom: str) -> None:
        """Record that a file has arrived."""
        if (made := self.made) is not None:
            delivered = (*made.delivered, _delivery(file, whom))
            write_json(self.folder / MADE, made.model_copy(update={"delivered": delivered}).model_dump())

    def end(
        self,
        state: Literal["delivered", "failed"],
        images: tuple[str, ...],
        error: str = "",
        *,
        failed: Mapping[str, str] | None = None,
        came: float = 0.0,
    ) -> None:
        """Record how it ended; attempts are counted anew."""
        known = set(self.done.images) if self.done else set()
        every = tuple(sorted(known | set(images)))
        ended = Done(state=state, images=every, at=time.time(), error=error, failed=failed or {}, came=came)
        write_json(self.folder / DONE, ended.model_dump())
        self.forget_attempt()

    def clear(self) -> None:
        """Remove images and results; what remains tells that they were here."""
        for part in (self.where, self.results):
            shutil.rmtree(part, ignore_errors=True)


class Inbox:
    """All series."""

    def __init__(self, root: Path) -> None:
        self.root, self._lock = root, Lock()  # nothing comes into a series while it is removed
        root.mkdir(parents=True, exist_ok=True)
        remove_parts(*(path / IMAGES for path in root.iterdir() if path.is_dir()))

    def take(self, series: str, image: str, content: bytes) -> None:
        """Keep an image, on the disk; one that is there already is replaced."""
        taken = self.series(series)
        with self._lock:
            with atomic_path(taken.where / _named(image), durable=True) as part:
                part.write_bytes(content)
            for folder in (taken.where, taken.folder, self.root):
                flush_names(folder)

    def series(self, uid: str) -> Series:
        """Give a series, which may have no images yet."""
        return Series(self.root / _named(uid))

    def all(self) -> Iterator[Series]:
        """List all series."""
        for folder in sorted(self.root.iterdir()):
            if folder.is_dir() and not folder.name.startswith("."):
                yield Series(folder)

    def quiet(self, seconds: float) -> Iterator[Series]:
        """List series to which nothing has come for a while, and of which something is to be made."""
        for series in self.all():
            try:
                still = time.time() - series.where.stat().st_mtime >= seconds
            except OSError:
                continue
            if still and series.images and not series.settled:
                yield series

    def sweep(self, keep: float) -> None:
        """Remove images and results of series that ended long ago, and to which nothing has come for as long."""
        for series in self.all():
            with self._lock:
                if (ended := series.done) and series.settled and time.time() - max(ended.at, series.came) > keep:
                    series.clear()


def _delivery(file: str, whom: str) -> str:
    return f"{file} to {whom}"


def _named(uid: str) -> str:
    """Name a file or folder; what is no UID may be anything."""
    known = UID.fullmatch(uid) and uid.strip(".")
    return uid if known else hashlib.sha256(uid.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _read(file: Path, kind: type[Told]) -> Told | None:
    try:
        return kind.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None
