"""The command line. Every command parses, calls one function, and prints where its results are."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.logging import RichHandler

from medsegdiff.cli import (
    benchmark,
    compare,
    console,
    data,
    demo,
    doctor,
    evaluate,
    import_,
    info,
    list_,
    plan,
    report,
    reproduce,
    segment,
    train,
)
from medsegdiff.errors import ConfigError, DataError, MedSegDiffError

app = typer.Typer(
    name="medsegdiff",
    help="MedSegDiff-V2: segment medical images by diffusion, with uncertainty.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.command("train")(train.train)
app.command("segment")(segment.segment)
app.command("doctor")(doctor.doctor)
app.command("evaluate")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("report")(report.report)
app.add_typer(reproduce.app, name="reproduce")
app.add_typer(benchmark.app, name="benchmark")
data.app.command("plan")(plan.plan)
app.add_typer(data.app, name="data")
app.command("import")(import_.import_)
app.command("info")(info.info)
app.command("list")(list_.list_)


@app.callback()
def common(
    plugin: Annotated[
        list[Path] | None,
        typer.Option(help="Python file that registers models, data sets or metrics of your own; may be repeated."),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is done.")] = False,
) -> None:
    """MedSegDiff-V2: segment medical images by diffusion, with uncertainty."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=console.err, show_path=False)],
    )
    for path in plugin or []:
        load_plugin(path)


def load_plugin(path: Path) -> None:
    """Run a user's Python file, so that it can register things."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise DataError(f"{path}: there is no such plugin; give a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and worker processes look their module up
    spec.loader.exec_module(module)


def guard(run: Callable[[], None]) -> None:
    """Run a program: exit status 0 where all went well, 1 where it failed, 2 where it was asked wrongly."""
    try:
        run()
    except (MedSegDiffError, OSError) as error:  # OSError: a full disk, a path that can't be written
        console.err.print("[bold red]Error:[/]", end=" ")
        console.say(str(error))
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    except KeyboardInterrupt:
        console.say("Interrupted.")
        sys.exit(1)


def main() -> None:
    """Run ``medsegdiff``."""
    guard(app)
