"""Printing: people's words go to stderr, results to stdout, progress bars where somebody looks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track as rich_track

Item = TypeVar("Item")

out = Console(soft_wrap=True, emoji=False)
err = Console(stderr=True, soft_wrap=True, emoji=False)


def track(items: Sequence[Item], description: str) -> Iterable[Item]:
    """Show a progress bar with the time left."""
    return rich_track(items, description=description, console=err)


def say(text: str) -> None:
    """Print a line for a person."""
    err.print(text, highlight=False, markup=False)


def give(text: str) -> None:
    """Print a result that a program may read."""
    out.print(text, highlight=False, markup=False)
