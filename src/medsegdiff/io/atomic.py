"""Files that are whole or not there at all, and arrays that lie in temporary files."""

from __future__ import annotations

import errno
import json
import math
import mmap
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

KEPT = 50
"""Letters of a file's name that the name of its neighbour keeps: with an ending, both must fit into 255 bytes."""


@contextmanager
def atomic_path(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Write to a neighbour of a path and move it there when all went well; on any error nothing has changed.

    The file may be read by whom the umask lets. ``durable`` waits until it is on the disk, so that it outlasts a loss
    of power: that takes long on a network, and what can be made again need not.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    ending = "".join(path.suffixes[-2:]) if path.suffix.lower() == ".gz" else path.suffix  # .nii.gz is one ending
    part = path.with_name(f".{path.name.removesuffix(ending)[:KEPT]}-{secrets.token_hex(4)}{ending}")
    part.touch(exist_ok=False)  # made with its permissions: to change them later is not allowed everywhere
    mode = part.stat().st_mode
    try:
        with full_worded(path):
            yield part
            if part.stat().st_mode != mode:  # safetensors puts a file of its own there, which nobody else may read
                with suppress(OSError):
                    part.chmod(mode)
            if durable:
                flush(part)
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def full_worded(path: Path) -> Iterator[None]:
    """Say of a full disk which file it was, and what to do."""
    try:
        yield
    except Exception as error:
        if is_full(error):
            way_out = "What was there before is unchanged. Free some room, or choose a folder on another disk."
            raise OSError(errno.ENOSPC, f"{path}: {os.strerror(errno.ENOSPC)}. {way_out}") from error
        raise


PART = re.compile(r"\..*-[0-9a-f]{8}(\.\w+)*")
"""What the neighbours are called that files are written to."""


def remove_parts(*folders: Path) -> None:
    """Remove what a process that was killed had begun to write into folders; nobody else may be writing there."""
    for folder in folders:
        for path in folder.glob(".*") if folder.is_dir() else ():
            if PART.fullmatch(path.name) and path.is_file():
                path.unlink(missing_ok=True)


NO_LINKS = tuple(
    getattr(errno, name) for name in ("EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EMLINK") if hasattr(errno, name)
)
"""How file systems say that a file has one name alone."""


def claim(source: Path, target: Path) -> bool:
    """Give a whole file another name if that is free, and tell whether it was: of many who try, one succeeds.

    That is a hard link. A server may have made it and its answer been lost: then the two are one file, and it is ours.
    Where a file system has none (FAT, object stores that look like folders), an empty file takes the name, which only
    one can make, and the whole one is moved over it; who is killed in between leaves the empty one, which no reader
    takes for a whole one.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        return source.samefile(target)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        try:
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        source.replace(target)
    return True


FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def is_full(error: Exception) -> bool:
    """Tell whether a disk is full, or a quota used up; libraries that are not Python's say so in words alone."""
    return getattr(error, "errno", None) in FULL or any(os.strerror(number) in str(error) for number in FULL)


NEW, OLD = ".new-", ".old-"
"""How a folder begins in which a folder's content is made anew, and one that holds the old content meanwhile."""


def names_in(folder: Path) -> list[str]:
    """Name what a folder holds, without what somebody who was killed had begun to make."""
    there = folder.iterdir() if folder.is_dir() else ()
    return sorted(path.name for path in there if not path.name.startswith(NEW))


@contextmanager
def content_replaced(folder: Path, old: Callable[[], Iterable[Path]]) -> Iterator[Path]:
    """Make the content of a folder anew in a folder within it; the old one goes when the new one has its place.

    Args:
        folder: Whose content it is; made if it is not there. Nobody else may be writing there.
        old: Lists what goes: files, or whole folders. On any error all of it is where it was; who is killed while files
            change places leaves it in a folder that begins with ``.old-``.

    Yields:
        Where to write.
    """
    made, token = not folder.exists(), secrets.token_hex(4)
    part, aside = folder / f"{NEW}{token}", folder / f"{OLD}{token}"
    for left in folder.glob(f"{NEW}*"):
        shutil.rmtree(left, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        with full_worded(folder):
            yield part
        aside.mkdir()
        gone = [(path, aside / path.name) for path in old() if path.exists()]
        _rename_all([*gone, *((path, folder / path.name) for path in sorted(part.iterdir()))])
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        with suppress(OSError):  # it is not there, or holds what could not be put back
            aside.rmdir()
        shutil.rmtree(part, ignore_errors=True)
        if made:
            with suppress(OSError):  # it is not empty, as all went well
                folder.rmdir()


def _rename_all(pairs: Sequence[tuple[Path, Path]]) -> None:
    """Rename one after the other; where one fails, those before it are renamed back."""
    done = list[tuple[Path, Path]]()
    try:
        for source, target in pairs:
            source.rename(target)
            done.append((source, target))
    except BaseException:
        for source, target in reversed(done):
            target.rename(source)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file, atomically, so that it is on the disk; bytes of a path that are no UTF-8 are written out."""
    with atomic_path(path, durable=True) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


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


def flush_names(folder: Path) -> None:
    """Wait until the names of a folder's files are on the disk, where the system can."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def make_room(shape: tuple[int, ...], dtype: np.dtype[np.generic], *, outer: int = 0) -> Shaped[np.ndarray, "..."]:
    """Make an array of zeros in a file that is gone when nobody uses it any more."""
    stored = (shape[outer], *shape[:outer], *shape[outer + 1 :])
    num_bytes = math.prod(shape) * dtype.itemsize
    with tempfile.TemporaryFile() as file:
        try:
            file.truncate(num_bytes)
            if hasattr(os, "posix_fallocate"):  # else a full disk would end the process without a word
                os.posix_fallocate(file.fileno(), 0, num_bytes)
        except OSError as error:
            where = f"{tempfile.gettempdir()} has no room for {num_bytes / 1e9:.1f} GB of results; set TMPDIR"
            raise OSError(error.errno, where) from error
        return np.moveaxis(np.memmap(file, dtype=dtype, mode="r+", shape=stored), 0, outer)


def release(*arrays: np.ndarray) -> None:
    """Let go of the memory that an array in a file has taken; what is in it is read anew when it is needed."""
    for array in arrays:
        mapped = getattr(array, "_mmap", None)  # where numpy keeps it
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)


def outer_axis(array: np.ndarray) -> int:
    """Find the axis along which an array is read fastest part by part."""
    return int(np.argmax(np.abs(array.strides)))
