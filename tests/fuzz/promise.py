"""The promise that every input is held to: a right result, or our error with file and cause; and nothing else touched.

Exit codes are those of ``docs/commands.md``. Nothing is written outside of ``--out``, nothing is left half-written
there, and no input is changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import nibabel as nib
import numpy as np
import pydicom
from PIL import Image

from medsegdiff import cli
from medsegdiff.errors import MedSegDiffError
from tests.fuzz.file_events import Watcher, watched

DOCUMENTED = (0, 1, 2, 3)
"""Exit codes of a command that nobody interrupts."""
SECONDS = 30
"""After which a command on files of a few kilobytes hangs."""
MEMORY = 4 << 30
"""Bytes that a command on such files may take beyond what the tests have."""
SMALL = ("--members", "2", "--steps", "1")
"""For ``segment``: a small ensemble."""


class BrokenPromiseError(AssertionError):
    """What must not happen has happened."""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """All that it said."""
        return self.out + self.err


@dataclass
class Ground:
    """Where commands run on one input after the other, deep in a folder that is watched as a whole."""

    root: Path
    """Watched: what is written above ``home`` shows too."""
    run: Path
    """A trained run."""
    counts: Counter[str] = field(default_factory=Counter)
    """How inputs of each format ended."""

    @property
    def home(self) -> Path:
        """Where the user is."""
        return self.root / "of" / "a" / "user" / "home"

    @property
    def data(self) -> Path:
        """The input."""
        return self.home / "data"

    @property
    def out(self) -> Path:
        """What ``--out`` names."""
        return self.home / "Dataset001_out"

    def clear(self) -> None:
        """Make room for the next input."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.data.mkdir(parents=True)

    def check(self, *arguments: str | Path, names: Sequence[str] = (), codes: Sequence[int] = DOCUMENTED) -> Ended:
        """Run a command and hold it to the promise; an error has to name one of some words."""
        before = contents(self.root, besides=self.out)
        ended = self._call([str(argument) for argument in arguments])
        if contents(self.root, besides=self.out) != before:
            raise BrokenPromiseError(f"{arguments}: files outside of --out were changed")
        if ended.code not in codes:
            raise BrokenPromiseError(f"{arguments}: exit {ended.code}, expected one of {codes}\n{ended.said}")
        if ended.code in (1, 3) and names and not any(name in ended.said for name in names):
            raise BrokenPromiseError(f"{arguments}: none of {names} is named\n{ended.said}")
        if ended.code == 2 and "Error:" not in ended.err and "Usage:" not in ended.err:
            raise BrokenPromiseError(f"{arguments}: no reason is told\n{ended.said}")
        check_whole(self.out)
        self.counts[f"{arguments[0]}: exit {ended.code}"] += 1
        return ended

    def _call(self, arguments: list[str]) -> Ended:
        out, err = _Stream(errors="strict"), _Stream(errors="backslashreplace")  # as Python has them
        code = 0
        with self._bounded(arguments), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                cli.main()
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        return Ended(code, out.text(), err.text())

    @contextlib.contextmanager
    def _bounded(self, arguments: list[str]) -> Iterator[None]:
        """Give a command what a process of its own has, and not more: time, memory, places to write."""
        argv, folder, handlers, tempdir = sys.argv, Path.cwd(), logging.getLogger().handlers, tempfile.tempdir
        with tempfile.TemporaryDirectory(dir=self.root.parent) as temporary:
            sys.argv, tempfile.tempdir, logging.getLogger().handlers = ["medsegdiff", *arguments], temporary, []
            os.chdir(self.home)
            try:
                with warnings.catch_warnings(), timed(), memory_bounded(), watched(self._allowed(Path(temporary))):
                    warnings.simplefilter("ignore")  # libraries warn on stderr; here that would be an error
                    yield
            finally:
                os.chdir(folder)
                sys.argv, tempfile.tempdir, logging.getLogger().handlers = argv, tempdir, handlers

    def _allowed(self, temporary: Path) -> Watcher:
        def watch(event: str, paths: tuple[Path, ...]) -> None:
            for path in paths:
                inside = bool({self.out, temporary} & {path, *path.parents})
                if not inside and not (event == "os.mkdir" and path in self.out.parents):
                    raise BrokenPromiseError(f"{event} of {path}, which is outside of --out")

        return watch


class _Stream(io.TextIOWrapper):
    """An output that takes what a terminal takes."""

    def __init__(self, *, errors: str) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", errors=errors, write_through=True)

    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode("utf-8")  # type: ignore[attr-defined]


@contextlib.contextmanager
def timed(seconds: int = SECONDS) -> Iterator[None]:
    """Refuse to wait for ever."""

    def late(signum: int, frame: FrameType | None) -> None:
        raise BrokenPromiseError(
            f"hangs: not done after {seconds} s, in\n{''.join(traceback.format_stack(frame)[-3:])}"
        )

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def memory_bounded(room: int = MEMORY) -> Iterator[None]:
    """Let allocations fail that are far larger than an input can need."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def contents(root: Path, *, besides: Path | None = None) -> dict[str, str]:
    """Tell every file of a tree by its bytes, links by where they lead."""
    found = {}
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if Path(folder, name) != besides]
        for name in (*folders, *files):
            path = Path(folder, name)
            found[str(path.relative_to(root))] = _told(path)
    return found


def _told(path: Path) -> str:
    if path.is_symlink():
        return f"to {path.readlink()}"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"


def check_whole(folder: Path) -> None:
    """Make sure that nothing is left half-written in a folder of results, by libraries that are not ours to use."""
    for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
        if path.name.startswith("."):
            raise BrokenPromiseError(f"{path} is left behind")
        if path.is_file():
            try:
                _read(path)
            except Exception as error:
                raise BrokenPromiseError(f"{path} is not whole: {error!r}") from error


def _read(path: Path) -> None:
    if path.suffix == ".png":
        with Image.open(path) as picture:
            picture.load()
    elif path.name.endswith((".nii", ".nii.gz")):
        np.asanyarray(nib.load(path).dataobj)  # type: ignore[attr-defined]
    elif path.suffix == ".dcm":
        pydicom.dcmread(path)
    elif not path.stat().st_size and path.suffix != ".jsonl":  # a log has no line yet
        raise ValueError("it is empty")


@contextlib.contextmanager
def at_the_door(name: str, *, valid: bool) -> Iterator[None]:
    """Let a reader refuse a file by our error, which names it; what is valid it may not refuse."""
    try:
        with warnings.catch_warnings(), timed(), memory_bounded():
            warnings.simplefilter("ignore")
            yield
    except MedSegDiffError as error:
        if valid:
            raise BrokenPromiseError(f"a valid file is refused: {error}") from error
        if name not in str(error):
            raise BrokenPromiseError(f"the error does not name {name}: {error}") from error


def converted(ended: Ended) -> int:
    """Read how many cases are told to be converted."""
    found = re.search(r"Converted (\d+) of \d+ cases", ended.err)
    return int(found[1]) if found else 0
