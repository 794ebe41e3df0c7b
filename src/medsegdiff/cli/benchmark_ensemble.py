"""``medsegdiff benchmark ensemble``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from medsegdiff.cli.console import give, out, say, track
from medsegdiff.errors import ConfigError

if TYPE_CHECKING:
    from medsegdiff.paper.figure3 import EnsembleBenchmark


def ensemble(
    paths: Annotated[list[Path], typer.Argument(metavar="RUN… DATA", help="Folders of runs, then the data.")],
    folder: Annotated[
        Path | None, typer.Option("--out", file_okay=False, help="Folder for curve.csv, curve.json and curve.png.")
    ] = None,
    members: Annotated[int, typer.Option(min=1, help="Size of the full ensemble, drawn once.")] = 100,
    fusion: Annotated[str, typer.Option(help="staple, mean or majority.")] = "staple",
    repeats: Annotated[int, typer.Option(min=1, help="Subsets drawn of each size.")] = 20,
    split: Annotated[str, typer.Option(help="Part of the run's split: train, val, test, all.")] = "test",
    cases: Annotated[
        int | None, typer.Option(min=1, help="Take so many cases, evenly spread; default: all.", show_default=False)
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of the sampler; default: the model's (20).", show_default=False)
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(help="ddpm, ddim, dpmpp-1, dpmpp-2m or dpmpp-sde-2m.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Members and subsets follow from it.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps; default: the best there is.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Measure Dice against the number of members, and how many are enough: figure 3 of the paper.

    Example: `medsegdiff benchmark ensemble runs/v2 runs/unet data/isic --out figure3`
    """
    from medsegdiff.io.atomic import to_json
    from medsegdiff.paper.figure3 import Plan, benchmark_ensemble

    *runs, data = paths
    if not runs:
        raise ConfigError(f"Only {data} is given; give one or several folders of runs, then the data.")
    plan = Plan(members, fusion, repeats, steps, sampler, split, cases, seed)
    found = benchmark_ensemble(runs, data, plan, device=device, track=track)
    if folder is not None:
        found.save(folder)
        say(f"Curves: {folder / 'curve.csv'}, {folder / 'curve.json'} · look at {folder / 'curve.png'}")
    if as_json:
        give(to_json(found.to_dict()))
    else:
        show(found)


def show(found: EnsembleBenchmark) -> None:
    """Print Dice at some sizes as a table, with the conventions behind the numbers."""
    from medsegdiff.paper.figure3 import CONVENTIONS

    table = Table(title=f"Dice by members, {found.plan.fusion}", box=box.SIMPLE, padding=(0, 1, 0, 0))
    rows = found.rows()
    for heading in rows[0]:
        table.add_column(heading, justify="left" if heading == "run" else "right")
    for row in rows:
        table.add_row(*(_written(value) for value in row.values()))
    out.print(table)
    for name, text in CONVENTIONS.items():
        say(f"{name}: {text}")


def _written(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if isinstance(value, float) else escape(str(value))
