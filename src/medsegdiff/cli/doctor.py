"""``medsegdiff doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from medsegdiff.cli import command, options
from medsegdiff.cli.console import info, out, result, track

if TYPE_CHECKING:
    from medsegdiff.doctor.report import Diagnosis

COLOURS = {"good": "green", "to look at": "yellow", "wrong": "bold red", "skipped": "dim"}


def doctor(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Images to look at, with masks of several raters perhaps; default: the run's own.", show_default=False
        ),
    ] = None,
    cases: Annotated[int, typer.Option(min=1, help="Images to segment; fewer if they take long.")] = 4,
    weights: options.Weights = "best",
    device: options.Device = None,
    precision: options.Precision = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Explain a run whose masks look wrong: its files, its training, how it samples, its masks.

    Example: `medsegdiff doctor runs/isic --data photos/`

    Exit status 1 if something is wrong.
    """
    from medsegdiff.doctor import examine
    from medsegdiff.io.atomic import to_json

    made = examine(run, data=data, weights=weights, cases=cases, device=device, precision=precision, track=track)
    if as_json:
        result(to_json(made.to_dict()))
    else:
        show(made)
    if not made.ok:
        raise typer.Exit(command.Exit.FAILED)


def show(made: Diagnosis) -> None:
    """Print the findings as a table, and count them."""
    table = Table(title=made.run, box=SIMPLE)
    for heading in ("", "verdict", "found → what to do"):
        table.add_column(heading, no_wrap=heading == "verdict")
    for finding in made.findings:
        verdict = Text(finding.verdict, style=COLOURS[finding.verdict])
        what = f"{finding.group}: {finding.name}"
        advice = f"\n→ {finding.advice}" if finding.advice else ""
        table.add_row(what, verdict, finding.found + advice)
    out.print(table)
    verdicts = [finding.verdict for finding in made.findings]
    counted = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in COLOURS if verdict in verdicts)
    info(f"{counted}; {made.seconds:.0f} s.")
