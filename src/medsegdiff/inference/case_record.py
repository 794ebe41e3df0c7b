"""The record of a case: what its result follows from, which files it is, and what is told of it; or why there is none.

It appears whole, when the result is whole (`medsegdiff.inference.attempt`); ``segment.json`` and the tables of a folder
are made of such records (`medsegdiff.inference.collect`).
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from medsegdiff.inference.record import ImageRecord, Settings, Told, json_of
from medsegdiff.io.hashes import files_of, sha256_of
from medsegdiff.io.names import file_name
from medsegdiff.metrics.plausibility import Appearance

FORMAT = 1
VERSION, HOST = version("medsegdiff"), socket.gethostname()
CASES = "cases"
"""Folder of the records, in folders of their own by the first two digits of a hash: no folder gets very large."""
LONGEST = 200
"""Bytes that a name of a record has at most."""
RUN = "run.json"
"""Beside them: how all of them are made, as ``segment.json`` tells it."""


class InputFile(Told):
    """A file that an image was read from, or the folder of its series."""

    path: str
    """As it was given."""
    folder: str = ""
    """From which that leads there; empty of a whole path, and from earlier versions."""
    size: int = -1
    """In bytes, of a series the sum; −1 where nobody could look."""
    modified: int = 0
    """When, in ns; of a series the last time."""
    sha256: str = ""
    """Empty where it could not be read."""

    @classmethod
    def of(cls, path: Path) -> InputFile:
        """Look at a file, and read it once."""
        found: dict[str, Any] = {"path": str(path)}
        with suppress(OSError):
            found |= {} if path.is_absolute() else {"folder": str(Path.cwd())}
            found |= _stated(path)
            found["sha256"] = sha256_of(path)
        return cls(**found)

    def is_still(self, path: Path) -> bool:
        """Tell whether a file holds the same: it is read again only where its place or its time is another."""
        try:
            now = _stated(path)
            untouched = now["modified"] == self.modified and path in (Path(self.path), Path(self.folder, self.path))
            return now["size"] == self.size and (untouched or sha256_of(path) == self.sha256)
        except OSError:
            return self.size < 0

    def place(self, root: Path) -> Path | None:
        """Find the file again, from wherever one looks: where it lay, or by a relative path beside the results."""
        places = (Path(self.folder, self.path), *(above / self.path for above in root.resolve().parents))
        return next((path for path in places if path.exists() and self.is_still(path)), None)


class OutputFile(Told):
    """A file of a result."""

    size: int
    sha256: str


class Failure(Told):
    """Why there is no result."""

    kind: str
    """Class of the error."""
    text: str


class CaseRecord(Told):
    """What became of a case: the content of ``cases/AB/NAME.json``."""

    format: int = FORMAT
    name: str
    inputs: tuple[InputFile, ...] = ()
    """In the order of the channels."""
    settings: Settings
    version: str = ""
    """Of this package."""
    outputs: Mapping[str, OutputFile] = {}
    """By their place in the folder of results."""
    attempt: str = ""
    """Folder in that of the results from which the files of the result were moved to their places."""
    image: ImageRecord | None = None
    """``None`` where there is no result."""
    rates: tuple[Mapping[str, str], ...] = ()
    """Rows of ``staple.csv``."""
    measures: tuple[Mapping[str, str], ...] = ()
    """Rows of ``measures.csv``."""
    seen: Appearance | None = None
    """What the mask of the largest structure looks like."""
    error: Failure | None = None
    seconds: float = 0.0
    """From the result before it to this one."""
    host: str = ""
    ended: str = ""
    """When, UTC."""


def made_here() -> dict[str, Any]:
    """Tell by what, where and when a record is made."""
    return {"version": VERSION, "host": HOST, "ended": datetime.now(UTC).isoformat(timespec="seconds")}


def record_file(root: Path, name: str) -> Path:
    """Tell where the record of a case lies; one whose name no file can have is called by a hash too."""
    digest = place_of(name)
    called = file_name(name)
    if called != name or len(called.encode()) > LONGEST:
        called = f"{called.encode()[: LONGEST // 2].decode(errors='ignore')}-{digest[:16]}"
    return root / CASES / digest[:2] / f"{called}.json"


def place_of(name: str) -> str:
    """Hash the name of a case: it decides about folder and part, on every machine alike."""
    return hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def record_files(root: Path) -> Iterator[Path]:
    """List the records of a folder."""
    for folder in sorted((root / CASES).glob("[0-9a-f][0-9a-f]")):
        yield from (path for path in folder.iterdir() if path.suffix == ".json" and path.name[0] != ".")


def read_case_record(file: Path) -> CaseRecord | None:
    """Read a record; nothing where there is none, or none that is whole."""
    try:
        text = file.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return CaseRecord.model_validate_json(text)
    except ValidationError:  # also of names that are no UTF-8, which Python alone reads
        with suppress(ValueError):
            return CaseRecord.model_validate(json.loads(text))
    return None


def written(record: CaseRecord) -> str:
    """Write a record on a line."""
    return json_of(record) + "\n"


def bytes_of(path: Path) -> int:
    """Tell how large an image is on disk; 0 where nobody can tell."""
    try:
        return int(_stated(path)["size"])
    except OSError:
        return 0


def _stated(path: Path) -> dict[str, Any]:
    stats = [file.stat() for file in files_of(path)]
    return {"size": sum(of.st_size for of in stats), "modified": max((of.st_mtime_ns for of in stats), default=0)}
