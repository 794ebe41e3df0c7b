"""How far work has come, told as a person or a program wants it: a bar, a line now and then, JSON, or nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Item = TypeVar("Item")
Mode = Literal["auto", "plain", "json", "none"]
"""``auto`` is a bar on a terminal, and ``plain`` elsewhere."""


class ProgressConsole(Console):
    """A console that knows how progress is shown on it; with ``json``, whatever is printed on it is an event."""

    progress: Mode = "auto"

    def print(self, *objects: Any, **options: Any) -> None:
        """Print, as an event if the console speaks JSON."""
        if self.progress != "json" or self.quiet:
            super().print(*objects, **options)
            return
        with self.capture() as caught:
            super().print(*objects, **options)
        if text := caught.get().strip():
            self.event("message", text=text)

    def event(self, kind: str, **facts: Any) -> None:
        """Write a JSON object on a line of its own."""
        if not self.quiet:
            self.file.write(json.dumps({"event": kind, **facts}, ensure_ascii=False) + "\n")
            self.file.flush()


@dataclass
class Bar:
    """Follows one piece of work; this one says nothing."""

    console: Console
    what: str
    total: int | None
    """``None`` while it is not known."""
    done: int = 0
    note: str = ""
    every: float = 10.0
    """Seconds between two lines."""
    _begun: int = field(init=False)
    _since: float = field(init=False, default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._begun = self.done

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def update(self, done: int | None = None, *, total: int | None = None, note: str | None = None) -> None:
        """Tell how much is done, of how much."""
        self.done = self.done if done is None else done
        self.total = self.total if total is None else total
        self.note = self.note if note is None else note
        self.show()

    def show(self) -> None:
        """Show where the work stands."""

    def close(self) -> None:
        """Leave what is shown as it is."""

    @property
    def seconds(self) -> float:
        """How long it has taken."""
        return time.monotonic() - self._since

    @property
    def eta(self) -> float | None:
        """Seconds that are left, if the rest goes as what is done."""
        made = self.done - self._begun
        return None if self.total is None or made <= 0 else self.seconds * (self.total - self.done) / made


class _Lines(Bar):
    """A line now and then, and one at the end."""

    _last = -1
    _at = 0.0

    def show(self) -> None:
        """Print a line, if the last one is some time ago."""
        if self.seconds - self._at >= self.every:
            self._line()

    def close(self) -> None:
        """Print how far it came, unless the last line says so."""
        if self.done != self._last and self.done > self._begun:
            self._line()

    def _line(self) -> None:
        self._last, self._at = self.done, self.seconds
        share = "" if not self.total else f" of {self.total} ({self.done / self.total:.0%})"
        over = self.total is not None and self.done >= self.total
        when = f", {duration(self.seconds)}" if over or self.eta is None else f", about {duration(self.eta)} left"
        note = f" · {self.note}" if self.note else ""
        self.console.print(f"{self.what}: {self.done}{share}{when}{note}", highlight=False, markup=False)


class _Events(Bar):
    """An event at the start and for each step."""

    def __enter__(self) -> Bar:
        self.show()
        return self

    def show(self) -> None:
        """Write an event."""
        eta = None if self.eta is None else round(self.eta, 3)
        share = self.done / self.total if self.total else None
        facts = {"what": self.what, "done": self.done, "total": self.total, "share": share, "eta_s": eta}
        if isinstance(self.console, ProgressConsole):
            self.console.event("progress", **facts, **({"note": self.note} if self.note else {}))


class _Drawn(Bar):
    """A bar that moves, on a terminal."""

    def __enter__(self) -> Bar:
        self._bar = Progress(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self.console,
        )
        self._task = self._bar.add_task(self.what, total=self.total, completed=self.done, note=self.note)
        self._bar.start()
        return self

    def show(self) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=self.done, total=self.total, note=self.note)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.stop()


def bar_on(console: Console, what: str, total: int | None, *, done: int = 0) -> Bar:
    """Make what follows work on a console, as the console wants it; to be entered by ``with``."""
    mode = console.progress if isinstance(console, ProgressConsole) else "auto"
    if mode == "auto":
        mode = "plain" if not console.is_terminal else "auto"
    kind = {"auto": _Drawn, "plain": _Lines, "json": _Events, "none": Bar}[mode]
    return (Bar if console.quiet else kind)(console, what, total, done)


def tracked(console: Console, items: Sequence[Item], what: str) -> Iterator[Item]:
    """Pass items on, and show how many are done."""
    with bar_on(console, what, len(items)) as bar:
        for number, item in enumerate(items, start=1):
            yield item
            bar.update(number)


def duration(seconds: float) -> str:
    """Write a time for people."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"
