"""Files that are whole or not there at all, and the names they may have."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Write to a neighbour of a path and move it there when all went well; on any error nothing has changed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ending = "".join(path.suffixes[-2:]) if path.suffix.lower() == ".gz" else path.suffix  # .nii.gz is one ending
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name.removesuffix(ending)}-", suffix=ending)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        flush(part)
        part.chmod(0o644)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, atomically."""
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, indented, atomically. Not-a-number becomes ``null``."""
    write_text(path, to_json(value) + "\n")


def to_json(value: Any, *, indent: int | None = 2) -> str:
    """Write a value as JSON that every reader takes: what is not a finite number becomes ``null``."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False, default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and value - value != 0 else value


def flush(path: Path) -> None:
    """Wait until a file is on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


REFUSED = re.compile(r'[\\/:*?"<>|]+')
"""What some file system does not allow in a name."""


def file_name(name: str) -> str:
    """Make a name that every file system takes."""
    return REFUSED.sub("-", name)
