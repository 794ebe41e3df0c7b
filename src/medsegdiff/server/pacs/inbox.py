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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from medsegdiff.io.atomic import atomic_path, remove_parts, write_json

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
    delivered: tuple[str, ...] = ()
    """``FILE to WHOM``."""


class Done(_Stored):
    """How a series ended."""

    state: Literal["delivered", "failed"]
    images: tuple[str, ...]
    at: float
    error: str = ""


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
        """Whether nothing is to be done: all that is there was there when it ended."""
        ended = self.done
        return ended is not None and set(self.images) <= set(ended.images)

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
        """Do not count the last attempt."""
        (self.folder / TRIED).unlink(missing_ok=True)

    def finish(self, images: tuple[str, ...]) -> None:
        """Record that results are whole."""
        write_json(self.folder / MADE, Made(images=images).model_dump())

    def deliver(self, what: str) -> None:
        """Record that something has arrived."""
        if (made := self.made) is not None:
            write_json(self.folder / MADE, Made(images=made.images, delivered=(*made.delivered, what)).model_dump())

    def end(self, state: Literal["delivered", "failed"], images: tuple[str, ...], error: str = "") -> None:
        """Record how it ended."""
        known = set(self.done.images) if self.done else set()
        ended = Done(state=state, images=tuple(sorted(known | set(images))), at=time.time(), error=error)
        write_json(self.folder / DONE, ended.model_dump())

    def clear(self) -> None:
        """Remove images and results; what remains tells that they were here."""
        for part in (self.where, self.results):
            shutil.rmtree(part, ignore_errors=True)


class Inbox:
    """All series."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        remove_parts(*(path / IMAGES for path in root.iterdir() if path.is_dir()))

    def take(self, series: str, image: str, content: bytes) -> None:
        """Keep an image; one that is there already is replaced."""
        with atomic_path(self.series(series).where / _named(image)) as part:
            part.write_bytes(content)

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
        """Remove images and results of series that ended long ago."""
        for series in self.all():
            if (ended := series.done) and series.settled and time.time() - ended.at > keep:
                series.clear()


def _named(uid: str) -> str:
    """Name a file or folder; what is no UID may be anything."""
    known = UID.fullmatch(uid) and uid.strip(".")
    return uid if known else hashlib.sha256(uid.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _read(file: Path, kind: type[Told]) -> Told | None:
    try:
        return kind.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None
