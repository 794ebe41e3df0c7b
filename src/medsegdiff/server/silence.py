"""Libraries that read files write no logs: what they say of a file may hold the name of its patient."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

NAMES = ("pynetdicom", "pydicom", "highdicom", "nibabel", "medsegdiff.inference", "medsegdiff.io")


def silence() -> None:
    """Keep them silent, in all threads."""
    for name in NAMES:
        logging.getLogger(name).setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", module=name)


@contextmanager
def silenced() -> Iterator[None]:
    """Keep them silent for a while."""
    before = {name: logging.getLogger(name).level for name in NAMES}
    with warnings.catch_warnings():
        silence()
        try:
            yield
        finally:
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)
