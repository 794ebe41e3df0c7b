"""What processes have left that live no more: it is ended, undone or removed by whoever comes next."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from medsegdiff.inference.attempt import (
    BEFORE,
    BEGINS,
    LOCK,
    RECORD,
    SHARED,
    UNLOCKED,
    beginning,
    move,
    place,
    put_back,
)
from medsegdiff.inference.case_record import CASES, HOST, read_case_record, record_file, record_files

ABROAD = 3600.0
"""Seconds without a change after which the folder of another machine may be looked after too: not all file systems keep
locks between machines."""


def sweep(root: Path) -> list[str]:
    """End what processes have begun that live no more, and remove their folders; name those that still work."""
    working = []
    found = [path for path in root.iterdir() if path.name.startswith((BEGINS, UNLOCKED))] if root.is_dir() else []
    for folder in sorted(found):
        if not folder.name.startswith((beginning(HOST), UNLOCKED)) and _age(root, folder) < ABROAD:
            working.append(folder.name)
            continue
        lock = FileLock(folder / LOCK, timeout=0, thread_local=False)
        try:
            lock.acquire()
        except (Timeout, OSError, NotImplementedError):
            working.append(folder.name)
            continue
        try:
            _end(root, folder)
        finally:
            lock.release()
        shutil.rmtree(folder, ignore_errors=True)
    return working


def _age(root: Path, folder: Path) -> float:
    """Tell how long nothing has changed, by the clock of the disk: those of machines differ."""
    now = root / f"{UNLOCKED}{secrets.token_hex(4)}"
    try:
        now.mkdir()
        return now.stat().st_mtime - max(path.stat().st_mtime for path in (folder, *folder.glob("*")))
    except OSError:
        return 0.0
    finally:
        with suppress(OSError):
            now.rmdir()


def _end(root: Path, folder: Path) -> None:
    """Move the files of a case that has been committed, and bring back what was to be replaced and was not."""
    record = read_case_record(folder / RECORD)
    committed = None if record is None else read_case_record(record_file(root, record.name))
    if committed is not None and committed.attempt == folder.name:
        place(root, committed)
        shared = folder / SHARED
        for file in [Path(where, name) for where, _, files in os.walk(shared) for name in files]:
            move(file, root / file.relative_to(shared))
    put_back(root, folder)
    _restore(root, folder)


def _restore(root: Path, folder: Path) -> None:
    """Bring back all results that new ones were to replace, if there is none of these."""
    before = folder / BEFORE
    names = sorted(path.name for path in before.iterdir()) if before.is_dir() else []
    fresh = next(record_files(root), None) is not None
    if fresh and CASES in names:  # else moving them away was cut off, and the records are their own
        return
    for name in names:
        if not fresh:
            remove(root / name)
        if not os.path.lexists(root / name):
            (before / name).rename(root / name)


def remove(path: Path) -> None:
    """Remove a file, a folder, or a link, but not what it leads to; fine where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
