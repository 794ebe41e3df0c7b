"""Files of a case in one ZIP, written as it is sent."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

CHUNK = 1 << 20
"""Bytes that are read at once."""


class _Pipe:
    """Takes what is written, and gives it on; it can't be rewound, so that nothing of it is kept."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        """Take some bytes."""
        self.parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Keep nothing back."""

    def taken(self) -> Iterator[bytes]:
        """Give what was written since the last time."""
        parts, self.parts = self.parts, []
        yield from parts


def zipped(files: Iterable[Path], root: Path) -> Iterator[bytes]:
    """Pack files, named as they lie below a folder; they are compressed already."""
    pipe: Any = _Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:
        for path in files:
            with (
                path.open("rb") as source,
                archive.open(path.relative_to(root).as_posix(), "w", force_zip64=True) as to,
            ):
                while chunk := source.read(CHUNK):
                    to.write(chunk)
                    yield from pipe.taken()
            yield from pipe.taken()
    yield from pipe.taken()
