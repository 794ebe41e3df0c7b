"""The command line. Every command parses, calls one function, and prints where its results are."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from medsegdiff.cli import (
    benchmark,
    calibrate,
    collect,
    command,
    compare,
    config,
    console,
    data,
    demo,
    dicom,
    doctor,
    evaluate,
    export,
    import_,
    info,
    models,
    pack,
    paper,
    segment,
    serve,
    train,
    view,
)
from medsegdiff.cli.command import guard as guard
from medsegdiff.registry import load_plugin as load_plugin

USE, TRAIN, JUDGE, PAPER = "Use", "Train", "Judge", "Paper"


class _Program(TyperGroup):
    """Takes old names of commands too, and says what they are called today."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command of a name, of today or of earlier versions."""
        known = _of_today(args)
        if known is not args and not ctx.resilient_parsing:
            old = " ".join(args[: 2 if len(args) > 1 and not args[1].startswith("-") else 1])
            new = " ".join(known[: 2 if " " in old else 1])
            console.warn(f"'medsegdiff {old}' is 'medsegdiff {new}' now; the old name will go.")
        return super().resolve_command(ctx, known)


def _of_today(args: list[str]) -> list[str]:
    """Give a command the name it has today."""
    match args:
        case ["reproduce", "table5", *rest]:
            return ["paper", "table5", "--count", *rest]
        case ["report" | "reproduce", *rest]:
            return ["paper", *rest]
        case ["benchmark", "ensemble", *rest]:
            return ["paper", "figure3", *rest]
    return args


app = typer.Typer(
    name="medsegdiff",
    cls=_Program,
    help="MedSegDiff-V2: segment medical images by diffusion, with uncertainty.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
command.add(app, "demo", demo.demo, panel=USE)
command.add(app, "segment", segment.segment, panel=USE)
command.add(app, "serve", serve.serve, panel=USE, long=False)
app.add_typer(dicom.app, name="dicom", rich_help_panel=USE)
command.add(app, "view", view.view, panel=USE, long=False)
command.add(app, "collect", collect.collect, panel=USE)
command.add(app, "doctor", doctor.doctor, panel=USE)
command.add(app, "info", info.info, panel=USE, long=False)
command.add(app, "list", info.list_, panel=USE, long=False)
app.add_typer(models.app, name="models", rich_help_panel=USE)
command.add(app, "export", export.export, panel=USE, long=False)
command.add(app, "pack", pack.pack, panel=USE, long=False)
app.add_typer(data.app, name="data", rich_help_panel=TRAIN)
command.add(app, "train", train.train, panel=TRAIN)
app.add_typer(config.app, name="config", rich_help_panel=TRAIN)
command.add(app, "import", import_.import_, panel=TRAIN, long=False)
command.add(app, "calibrate", calibrate.calibrate, panel=JUDGE)
command.add(app, "evaluate", evaluate.evaluate, panel=JUDGE)
command.add(app, "compare", compare.compare, panel=JUDGE, long=False)
app.add_typer(benchmark.app, name="benchmark", rich_help_panel=JUDGE)
app.add_typer(paper.app, name="paper", rich_help_panel=PAPER)


def _show_version(wanted: bool) -> bool:
    if wanted:
        from medsegdiff import __version__

        console.result(f"medsegdiff {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def common(
    plugin: command.Plugins = None,
    quiet: command.Quiet = None,
    verbose: command.Verbose = None,
    progress: command.ShownProgress = None,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """MedSegDiff-V2: segment medical images by diffusion, with uncertainty."""
    console.configure(quiet=bool(quiet), verbose=bool(verbose), progress=progress or "auto")
    for path in plugin or []:
        load_plugin(path)


def main() -> None:
    """Run ``medsegdiff``."""
    guard(lambda: app(prog_name="medsegdiff"))
