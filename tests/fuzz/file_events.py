"""What this process is about to do to files, as Python tells its audit hooks: one door to watch, and to make fail.

Nothing of the program has to be changed for it. Not told are writes into files that are open already, and files that
libraries open without Python.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Watcher = Callable[[str, tuple[Path, ...]], None]
"""Takes the name of an event and the paths that it is about to change; an exception stops the event."""

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGING = {"os.rename": 2, "os.link": 2, "os.symlink": 2, "os.remove": 1, "os.mkdir": 1, "os.rmdir": 1} | {
    "os.truncate": 1,
    "os.chmod": 1,
    "os.utime": 1,
}
"""Events that change files, and how many of their arguments are paths."""
_watchers: list[Watcher] = []


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Tell somebody of each change to files before it happens."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watchers or not (event == "open" or event in CHANGING):
        return
    paths = _changed(event, arguments)
    if paths and "__pycache__" not in str(paths[0]):
        for watcher in list(_watchers):
            watcher(event, paths)


def _changed(event: str, arguments: tuple[Any, ...]) -> tuple[Path, ...]:
    if event == "open":
        named = arguments[:1] if arguments[2] & WRITING else ()
    elif event == "os.symlink":
        named = arguments[1:2]  # what it leads to stays as it is
    else:
        named = arguments[: CHANGING[event]]
    if event in ("os.remove", "os.rmdir") and arguments[1] >= 0:  # relative to a folder that is open
        return (Path(os.readlink(f"/proc/self/fd/{arguments[1]}")) / os.fsdecode(arguments[0]),)  # noqa: PTH115
    paths = [os.fsdecode(name) for name in named if isinstance(name, (str, bytes, os.PathLike))]  # not descriptors
    return tuple(Path(os.path.abspath(path)) for path in paths if path != os.devnull)  # noqa: PTH100  (no links)


sys.addaudithook(_hook)
