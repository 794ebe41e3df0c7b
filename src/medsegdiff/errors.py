"""The exceptions that users meet. Every message says what was given, what is allowed and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager


class MedSegDiffError(Exception):
    """Base of everything this package raises on purpose; the command line prints it without a traceback."""


class ConfigError(MedSegDiffError, ValueError):
    """A configuration, an option or a registered name is not valid."""


class DataError(MedSegDiffError, ValueError):
    """A file or a folder does not hold what it should."""


class GeometryError(MedSegDiffError, ValueError):
    """An image and a mask do not lie on the same grid."""


class ShapeError(MedSegDiffError, ValueError):
    """A tensor has a shape that the operation can't take."""


class CheckpointError(MedSegDiffError, ValueError):
    """A run folder can't be read, written or matched with the model."""


class TrainingError(MedSegDiffError, RuntimeError):
    """Training can't go on: the loss stays non-finite, say."""


class OutOfMemoryError(MedSegDiffError, MemoryError):
    """There is not enough memory for what was asked."""


LACKING = ("allocate memory", "not enough memory", "out of memory", "alloc_failed", "bad_alloc")
"""Words, in small letters, in which libraries say so: PyTorch on CPU and GPU, cuDNN and its like, C++."""


def lacks_memory(error: BaseException) -> bool:
    """Tell whether memory did not suffice, in whichever of many ways a library says so."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, (RuntimeError, OSError)) and any(words in said for words in LACKING)
    )


@contextmanager
def memory_worded(what: str, *, way_out: str) -> Iterator[None]:
    """Turn all those ways into one error that says what to do."""
    try:
        yield
    except (RuntimeError, OSError, MemoryError) as error:
        if isinstance(error, OutOfMemoryError) or not lacks_memory(error):
            raise
        asked = next((line.strip() for line in str(error).splitlines() if "allocate" in line), type(error).__name__)
        raise OutOfMemoryError(f"{what}: there is not enough memory ({asked.rstrip('.')}). {way_out}") from error


def nearest(name: str, known: Iterable[str]) -> str:
    """Name the known word closest to a wrong one, for the end of an error message."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{found[0]}'?" if found else ""


def some(names: Sequence[str], *, most: int = 5) -> str:
    """List the first of many names, for an error message."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def size(shape: Sequence[int]) -> str:
    """Write a shape for an error message."""
    return "×".join(map(str, shape))
