"""A DICOM node: series come in by C-STORE, results go out by C-STORE, until somebody stops it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from filelock import FileLock, Timeout

from medsegdiff.errors import ConfigError
from medsegdiff.server.pacs.inbox import Inbox
from medsegdiff.server.pacs.processing import Processing
from medsegdiff.server.pacs.receiver import Receiver

LOOK = 0.5
"""Seconds between two looks for series that are quiet."""
LOCK = ".lock"


@dataclass(frozen=True)
class Address:
    """Who a node is, and who may call it."""

    title: str
    host: str
    port: int
    allowed: Collection[str]
    """AE titles; none: all."""


def run_node(
    address: Address,
    processing: Processing,
    folder: Path,
    *,
    quiet: float,
    keep: float,
    started: Callable[[int], None],
    stop: Event,
) -> None:
    """Receive and process series until ``stop`` is set.

    Args:
        address: Where it listens, and to whom.
        processing: What becomes of a series.
        folder: Of the series, which outlasts the node.
        quiet: Seconds without a new image after which a series is taken for whole.
        keep: Seconds that images and results are kept after the end of a series.
        started: Told the port when it listens.
        stop: Ends it.

    Raises:
        ConfigError: If another node works in the folder, or the port is taken.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        inbox = Inbox(folder)
        receiver = Receiver(inbox, address.title, host=address.host, port=address.port, allowed=address.allowed)
        try:
            started(receiver.port)
            while not stop.wait(min(LOOK, quiet)):
                for series in inbox.quiet(quiet):
                    if not stop.is_set():
                        processing.do(series)
                inbox.sweep(keep)
        finally:
            receiver.stop()


def locked(folder: Path) -> FileLock:
    """Make sure that one program works in a folder."""
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise ConfigError(f"Another program works in {folder}. Choose another folder: --inbox FOLDER.") from error
    return lock
