"""What files are by their content: the SHA-256 that ``sha256sum`` computes too."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path


def sha256_of(path: Path) -> str:
    """Hash a file; of a folder, the names and hashes of the files in it."""
    if path.is_dir():
        lines = (f"{sha256_of(file)}  {file.name}\n" for file in files_of(path))
        return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_of(path: Path) -> Iterator[Path]:
    """List what an image is read from: its file, or those of its series."""
    if not path.is_dir():
        yield path
        return
    yield from sorted(inner for inner in path.iterdir() if inner.is_file())
