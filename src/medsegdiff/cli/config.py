"""``medsegdiff config``: what a preset, a file or a run stands for, and what differs between two."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from medsegdiff.cli import command, complete, options
from medsegdiff.cli.console import out, result

app = typer.Typer(help="Look at configurations: presets, files, those of runs.", no_args_is_help=True)
What = Annotated[
    str, typer.Argument(help="Name of a preset, a YAML file, or the folder of a run.", autocompletion=complete.presets)
]


def schema() -> None:
    """Print the JSON schema of preset files: an editor that knows it completes and checks them.

    Example: `medsegdiff config schema > medsegdiff.schema.json`
    """
    from medsegdiff.config.schema import schema as of_config
    from medsegdiff.io.atomic import to_json

    result(to_json(of_config()))


def show(what: What, set_: options.Set = None) -> None:
    """Print all that a preset, a file or a run asks for, as YAML that --preset takes.

    Example: `medsegdiff config show v2-tiny --set train.max_steps=2000 > mine.yaml`
    """
    from medsegdiff.config.schema import as_yaml
    from medsegdiff.training.plan import find_config

    result(as_yaml(find_config(what, set_ or [])))


def diff(first: What, second: What, as_json: options.AsJson = False) -> None:
    """Print the values that differ between two presets, files or runs.

    Example: `medsegdiff config diff v2-tiny runs/isic`
    """
    from medsegdiff.config.schema import differences
    from medsegdiff.io.atomic import to_json
    from medsegdiff.training.plan import find_config

    found = differences(find_config(first), find_config(second))
    if as_json:
        result(to_json(found))
        return
    if found:
        table = Table("key", first, second)
        for key, values in found.items():
            table.add_row(key, *("–" if value is None else str(value) for value in values))
        out.print(table)


command.add(app, "schema", schema, long=False)
command.add(app, "show", show, long=False)
command.add(app, "diff", diff, long=False)
