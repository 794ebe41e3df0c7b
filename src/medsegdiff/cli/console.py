"""Printing: results go to stdout; words for people, warnings, errors and progress to stderr."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich.console import Console

from medsegdiff.progress import Mode, ProgressConsole, tracked

Item = TypeVar("Item")

# names of users are printed as they are: brackets and colons mean nothing
out = Console(soft_wrap=True, emoji=False, markup=False)
err = ProgressConsole(stderr=True, soft_wrap=True, emoji=False, markup=False)
"""For warnings and errors, which nobody can turn off."""
people = ProgressConsole(stderr=True, soft_wrap=True, emoji=False, markup=False)
"""For all other words, which ``--quiet`` turns off."""


class _Said(logging.Handler):
    """Says what is logged: a line that is never broken, or an event of JSON."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say it."""
        if err.progress == "json":
            err.event(record.levelname.lower(), text=self.format(record))
        else:
            err.print(f"{record.levelname.capitalize()}: {self.format(record)}", highlight=False)


def configure(*, quiet: bool | None = None, verbose: bool | None = None, progress: Mode | None = None) -> None:
    """Choose how much is said, and how progress is shown; ``None`` leaves a choice as it is."""
    if not logging.getLogger().handlers:
        logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[_Said()])
    if quiet is not None:
        people.quiet = quiet
    if verbose is not None:
        logging.getLogger("medsegdiff").setLevel(logging.INFO if verbose else logging.NOTSET)
    if progress is not None:
        people.progress = err.progress = progress


def track(items: Sequence[Item], description: str) -> Iterable[Item]:
    """Show how many items are done, and the time left."""
    return tracked(people, items, description)


def info(text: str) -> None:
    """Tell a person something."""
    people.print(text, highlight=False)


def warn(text: str) -> None:
    """Warn a person, however quiet it shall be."""
    err.print(f"Warning: {text}", highlight=False)


def fail(text: str, *, code: int) -> None:
    """Say what went wrong."""
    if err.progress == "json":
        err.event("error", text=text, exit=code)
        return
    err.print("Error:", style="bold red", end=" ")
    err.print(text, highlight=False)


def result(text: str) -> None:
    """Print a result that a program may read."""
    out.print(text, highlight=False)
