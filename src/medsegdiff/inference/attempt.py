"""Attempts at cases: results come about in a folder of their own, and are there at once, whole, by whoever was first.

1. The files of a case are written into the attempt's folder, and beside them its record.
2. The record gets its place under ``cases/`` by a hard link: of several attempts at a case one succeeds, the others go.
3. The files are moved to their places. Who is killed in between has left a record that says where its files lie, and
   whoever finds it moves them.

A process has one such folder, in which one case lies at a time, and holds a lock in it as long as it lives. What dead
ones have left is for `medsegdiff.inference.sweeping`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from medsegdiff.inference.case_record import CASES, HOST, CaseRecord, OutputFile, read_case_record, record_file, written
from medsegdiff.io.atomic import atomic_path, claim, full_worded
from medsegdiff.io.hashes import sha256_of
from medsegdiff.io.names import file_name

BEGINS, RECORD, LOCK, SHARED = ".attempt-", "record.json", "lock", "shared"
UNLOCKED = ".making-"
"""How a folder begins whose lock is not held yet."""
ASIDE, BEFORE = "earlier", "before"
"""For results that are to be replaced: some cases, or all that a folder held."""
CHANGED = "changed"
"""Folder in that of the results for files that somebody has changed and a new result replaces: never removed."""


class Attempt:
    """A folder of this process in a folder of results; made when there is something to write."""

    def __init__(self, root: Path) -> None:
        """Name it."""
        self.root = root
        self.folder = root / f"{beginning(HOST)}{os.getpid()}-{secrets.token_hex(4)}"
        self.shared = self.folder / SHARED
        """For files that all cases have in common: they go with the first case, and are no part of it."""
        self._lock: FileLock | None = None
        self._given = set[Path]()

    def begin(self) -> Path:
        """Make the folder, which nobody sees before its lock is held."""
        while self._lock is None:
            made = self.root / f"{UNLOCKED}{secrets.token_hex(4)}"
            made.mkdir(parents=True)
            lock = FileLock(made / LOCK, timeout=0, thread_local=False)
            with suppress(FileNotFoundError, Timeout):  # somebody swept just then
                lock.acquire()
                made.rename(self.folder)
                self._lock = lock
        return self.folder

    @contextmanager
    def file(self, name: str) -> Iterator[IO[str]]:
        """Write a file of the folder of results anew: it is there when it is whole, and on the disk."""
        part = self.begin() / f"{secrets.token_hex(4)}{Path(name).suffix}"
        try:
            with (
                full_worded(self.root / name),
                part.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
            ):
                yield file
                file.flush()
                os.fsync(file.fileno())
            move(part, self.root / name)
        finally:
            part.unlink(missing_ok=True)

    def write(self, name: str, text: str) -> None:
        """Write a text so."""
        with self.file(name) as file:
            file.write(text)

    def outputs(self) -> dict[str, OutputFile]:
        """Find what was written for a case."""
        files = sorted(_files_in(self.folder))
        return {
            file.relative_to(self.folder).as_posix(): OutputFile(size=file.stat().st_size, sha256=sha256_of(file))
            for file in files
        }

    def commit(self, record: CaseRecord) -> bool:
        """Put a case into the folder of results, unless somebody has been faster."""
        file, target = self.begin() / RECORD, record_file(self.root, record.name)
        record = record.model_copy(update={"attempt": self.folder.name if record.outputs else ""})
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            file.write_text(written(record), encoding="utf-8", errors="backslashreplace")
            if not claim(file, target):
                self.discard()
                return False
            try:
                place(self.root, record)
                self._share()
            except BaseException:
                withdraw(self.root, record, target)
                raise
        finally:
            file.unlink(missing_ok=True)
        return True

    def _share(self) -> None:
        shared = (Path(place, name) for place, _, files in os.walk(self.shared) for name in files)
        for file in set(shared) - self._given:
            self.write(file.relative_to(self.shared).as_posix(), file.read_text(encoding="utf-8"))
            self._given.add(file)

    def discard(self) -> None:
        """Remove what was written for a case."""
        for file in list(_files_in(self.folder)):
            file.unlink(missing_ok=True)

    def set_aside(self, names: Iterable[str]) -> list[str]:
        """Take results out that are to be replaced, each with its record, which goes last; name changed files.

        Where somebody has corrected a mask, say: these lie in ``changed/``.
        """
        changed = []
        for name in names:
            file = record_file(self.root, name)
            record = read_case_record(file)
            for path, written_as in ({} if record is None else record.outputs).items():
                if _is_changed(self.root / path, written_as):
                    move(self.root / path, _free_name(self.root / CHANGED / path))
                    changed.append(path)
                else:
                    move(self.root / path, self.begin() / ASIDE / path)
            move(file, self.begin() / ASIDE / file.relative_to(self.root))
        return changed

    def put_back(self) -> None:
        """Undo that, of cases that have no other record by now."""
        put_back(self.root, self.folder)

    def forget(self) -> None:
        """Remove what was taken out: there is something new."""
        shutil.rmtree(self.folder / ASIDE, ignore_errors=True)

    def close(self) -> None:
        """Remove the folder, unless it holds what could not be put back: then whoever comes next tries again."""
        if self._lock is None:
            return
        kept = any(files for name in (ASIDE, BEFORE) for _, _, files in os.walk(self.folder / name))
        self.discard() if kept else shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()
        self._lock = None
        if not kept:
            shutil.rmtree(self.folder, ignore_errors=True)  # some systems remove no file that is open


@contextmanager
def held(root: Path) -> Iterator[Attempt]:
    """Have an attempt for a while."""
    attempt = Attempt(root)
    try:
        yield attempt
    finally:
        attempt.close()


def place(root: Path, record: CaseRecord) -> bool:
    """Move the files of a result to their places, as far as they are not there; tell whether all are there now."""
    for path in record.outputs:
        source, target = root / record.attempt / path, root / path
        if record.attempt and source.is_file():
            with suppress(FileNotFoundError):  # somebody else moves it too
                move(source, target)
    return all(_has_size(root / path, of.size) for path, of in record.outputs.items())


def withdraw(root: Path, record: CaseRecord, file: Path) -> None:
    """Remove a result: its record goes last, so that none of its files is forgotten."""
    for path in (*record.outputs, file.relative_to(root).as_posix()):
        with suppress(OSError):
            (root / path).unlink(missing_ok=True)


def is_whole(root: Path, record: CaseRecord) -> bool:
    """Tell whether the files of a result are there, after ending a move that was begun."""
    return all(_has_size(root / path, of.size) for path, of in record.outputs.items()) or place(root, record)


def put_back(root: Path, folder: Path) -> None:
    """Bring back what was set aside, of cases that have no other record by now; what is new stays.

    Setting aside may have been cut off: then files have gone whose record is still in its place. Records come back
    last.
    """
    aside = folder / ASIDE
    if not aside.is_dir():
        return
    records = [file.relative_to(aside) for file in sorted((aside / CASES).glob("*/*.json"))]
    for path in [path for path in records if (root / path).exists()]:
        record = read_case_record(aside / path)
        for gone in (*(() if record is None else record.outputs), path):
            (aside / gone).unlink(missing_ok=True)
    left, last = (
        [Path(where, name).relative_to(aside) for where, _, files in os.walk(aside) for name in files],
        {*records},
    )
    for path in sorted(left, key=last.__contains__):
        if not (root / path).exists():
            move(aside / path, root / path)
    shutil.rmtree(aside, ignore_errors=True)


def beginning(host: str) -> str:
    """Tell how folders of a machine begin; names of machines may begin alike, or differ at their end."""
    return f"{BEGINS}{file_name(host)[:40]}-{hashlib.blake2b(host.encode(), digest_size=4).hexdigest()}-"


def _files_in(folder: Path) -> Iterator[Path]:
    """List the files of a case: what lies in folders, but for what was taken out and what all have in common."""
    for place, folders, files in os.walk(folder):
        if Path(place) == folder:
            folders[:] = [name for name in folders if name not in (ASIDE, BEFORE, SHARED)]
        else:
            yield from (Path(place, name) for name in files)


def _is_changed(path: Path, written_as: OutputFile) -> bool:
    """Tell whether a file that is there, and not empty, is another than was written."""
    try:
        size = path.stat().st_size
        return size > 0 and (size != written_as.size or sha256_of(path) != written_as.sha256)
    except OSError:
        return False


def _free_name(path: Path) -> Path:
    """Give a path that nothing has yet."""
    others = (path.with_name(f"{number}-{path.name}") for number in count(2))
    return next(one for one in chain([path], others) if not one.exists())


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def move(source: Path, target: Path) -> None:
    """Move a file; onto another disk, which a link may lead to, by a copy that is whole at once."""
    if not source.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with atomic_path(target) as part:
            shutil.copyfile(source, part)
        source.unlink()
