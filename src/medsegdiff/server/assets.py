"""The page: files of this package, served as they are, with what keeps a browser from asking anybody else."""

from __future__ import annotations

from importlib.resources import files
from pathlib import PurePosixPath

from medsegdiff.errors import DataError

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
"""What the page is made of."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; "
        "img-src 'self' data: blob:; connect-src 'self' data: blob:; font-src 'self' data:; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Of every answer: nothing is loaded from elsewhere, whatever a file or a name holds."""


def asset(name: str) -> tuple[bytes, str]:
    """Read a file of the page, and tell its type."""
    path = PurePosixPath(name or "index.html")
    if path.is_absolute() or ".." in path.parts or path.suffix not in TYPES:
        raise DataError("There is no such file.")
    file = files("medsegdiff.server").joinpath("page", *path.parts)
    if not file.is_file():
        raise DataError("There is no such file.")
    return file.read_bytes(), TYPES[path.suffix]
