"""``medsegdiff info``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from medsegdiff.cli import complete, options
from medsegdiff.cli.console import out, result


def info(
    what: Annotated[
        str,
        typer.Argument(help="Name of a preset, a YAML file, or the folder of a run.", autocompletion=complete.presets),
    ],
    size: Annotated[
        int | None, typer.Option(min=8, help="Image side at which operations are counted.", show_default=False)
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Tell what a model is and what it costs.

    Example: `medsegdiff info v2-paper --json`
    """
    from medsegdiff.io.atomic import to_json
    from medsegdiff.training.inventory import describe

    facts = describe(what, size=size)
    if as_json:
        result(to_json(facts))
        return
    table = Table(show_header=False, title=what)
    for key, value in facts.items():
        if key != "config":
            shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
            table.add_row(key, escape(shown))
    out.print(table)
