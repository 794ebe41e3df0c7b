"""What all commands have in common: how they are told from one another, a few options, and how they end."""

from __future__ import annotations

import functools
import inspect
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer

from medsegdiff.cli import console
from medsegdiff.errors import ConfigError, MedSegDiffError, memory_worded
from medsegdiff.progress import Mode
from medsegdiff.registry import load_installed, load_plugin

COMMON = "Options of all commands"


class Exit(IntEnum):
    """What a program that called this one may rely on."""

    OK = 0
    FAILED = 1
    """It could not be done, or what was looked at is not in order."""
    USAGE = 2
    """It was asked wrongly."""
    SOME_FAILED = 3
    """Some cases could not be done; the others are."""
    INTERRUPTED = 130
    """Ctrl-C; training also after SIGTERM, with a checkpoint to go on from."""
    TERMINATED = 143
    """SIGTERM."""


Quiet = Annotated[
    bool | None,
    typer.Option(
        "--quiet", "-q", help="Print results, warnings and errors alone.", rich_help_panel=COMMON, show_default=False
    ),
]
Verbose = Annotated[
    bool | None,
    typer.Option("--verbose", "-v", help="Log what is done.", rich_help_panel=COMMON, show_default=False),
]
ShownProgress = Annotated[
    Mode | None,
    typer.Option(
        "--progress",
        help="auto: a bar on a terminal, else plain: a line now and then; json: events on stderr.",
        rich_help_panel=COMMON,
        show_default=False,
    ),
]
Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        help="Python file that registers models, data sets or metrics of your own; may be repeated.",
        rich_help_panel=COMMON,
        show_default=False,
    ),
]
_SHARED: dict[str, Any] = {"plugin": Plugins, "quiet": Quiet, "verbose": Verbose, "progress": ShownProgress}


def add(
    app: typer.Typer, name: str, function: Callable[..., None], *, panel: str | None = None, long: bool = True
) -> None:
    """Add a command with the common options to a program; ``long`` ones show progress."""
    app.command(name, rich_help_panel=panel)(_shared(function, [key for key in _SHARED if long or key != "progress"]))


def _shared(function: Callable[..., None], names: list[str]) -> Callable[..., None]:
    """Give a function the common options too, which it does not see."""
    signature = inspect.signature(function, eval_str=True)
    added = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_SHARED[n]) for n in names]
    parameters = [*signature.parameters.values(), *added]

    @functools.wraps(function)
    def run(**given: Any) -> None:
        files = given.pop("plugin")
        console.configure(**{name: given.pop(name) for name in names if name != "plugin"})
        load_installed()
        for file in files or []:
            load_plugin(file)
        try:
            function(**given)
        except KeyboardInterrupt:
            console.info("Interrupted.")
            raise typer.Exit(Exit.INTERRUPTED) from None

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


LESS = "Close other programs, or ask for less at a time: smaller images, fewer members, a lower batch size."


def ended(*, failed: int, done: int) -> None:
    """End a command that passed over what it could not do."""
    if failed:
        raise typer.Exit(Exit.SOME_FAILED if done else Exit.FAILED)


def guard(run: Callable[[], None]) -> None:
    """Run a program, say what went wrong, and end as `Exit` says."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: paths may hold bytes that are no UTF-8
    try:
        with _stoppable(), memory_worded("The command", way_out=LESS):
            run()
    except (MedSegDiffError, OSError) as error:  # OSError: a full disk, a path that can't be written
        code = Exit.USAGE if isinstance(error, ConfigError) else Exit.FAILED
        console.fail(str(error), code=code)
        sys.exit(code)
    except KeyboardInterrupt:
        console.info("Interrupted.")
        sys.exit(Exit.INTERRUPTED)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM end the program as an exception does, so that half-written files are removed, and SIGINT in any case.

    What a script starts in the background begins with SIGINT ignored: Ctrl-C, or a workflow that asks, would be lost.
    """

    def end(*_: object) -> None:
        sys.exit(Exit.TERMINATED)

    try:
        before = {signal.SIGTERM: signal.signal(signal.SIGTERM, end)}
    except ValueError:  # not in the main thread: signals are not ours
        yield
        return
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
