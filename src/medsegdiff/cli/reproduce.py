"""``medsegdiff reproduce``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from medsegdiff.cli.benchmark_ensemble import show
from medsegdiff.cli.console import err, give, say, track
from medsegdiff.cli.report import Format
from medsegdiff.errors import ConfigError, nearest

REPORTED = ("table1", "table2", "table3")


class Experiments(TyperGroup):
    """Tables and figures; of a wrong name it says which there are."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find an experiment, or say what is wrong with its name."""
        name = args[0]
        if not name.startswith("-") and name not in self.commands:
            known = sorted(self.commands)
            why = (
                f" {name} compares data sets: train and segment each, then 'medsegdiff report {name}'."
                if name in REPORTED
                else nearest(name, known)
            )
            raise ConfigError(f"Nothing to reproduce is called '{name}'. Known: {', '.join(known)}.{why}")
        return super().resolve_command(ctx, args)


app = typer.Typer(help="Repeat experiments of the paper.", no_args_is_help=True, cls=Experiments)
Out = Annotated[Path, typer.Option(file_okay=False, help="Folder for runs and results; a stopped one is gone on with.")]


@app.command()
def table4(
    data: Annotated[str, typer.Option(help="Data folder, or phantom: built-in lesions.")],
    budget: Annotated[float, typer.Option(min=0.001, help="Minutes of training steps for each run.")],
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each row.")] = 3,
    out: Out = Path("table4"),
    row: Annotated[
        list[str] | None,
        typer.Option(help="Only this row; may be repeated. Beside the paper's: U-SA+cross-attention, SS-Former alone."),
    ] = None,
    preset: Annotated[str, typer.Option(help="Whose network and recipe all rows share.")] = "v2-tiny",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a value for all rows: section.key=value; may be repeated.")
    ] = None,
    members: Annotated[
        int | None, typer.Option(min=1, help="Of each test image; default: the preset's (10).", show_default=False)
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Of the sampler; default: the preset's (20).", show_default=False)
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="text, csv, latex or markdown.")] = Format.TEXT,
    device: Annotated[str | None, typer.Option(help="cpu keeps off the GPU.")] = None,
) -> None:
    """Ablate U-SA, SS-Former and NBP-Filter: train each row for the same time, with several seeds, and score it.

    Example: `medsegdiff reproduce table4 --data phantom --budget 3`

    Takes rows × seeds × budget, and validation, segmentation and scores on top.
    """
    from medsegdiff.paper.ablation import ablate
    from medsegdiff.paper.ablation_plan import Plan
    from medsegdiff.paper.ablation_results import tally
    from medsegdiff.paper.formats import FORMATS
    from medsegdiff.paper.variants import find_variants

    rows = find_variants(row or ())
    plan = Plan(data, budget, seeds, preset, tuple(set_ or ()), members, steps)
    failed = ablate(plan, rows, out, device=device, console=err, track=track)
    found = tally(plan, rows, out, notes=[f"{run}: {why}" for run, why in failed.items()])
    found.save(out)
    say(f"Results: {out / 'results.json'}, {out / 'table4.csv'}, {out / 'table4.md'}")
    give(FORMATS[format_.value](found.printed))
    if failed:
        raise typer.Exit(1)


@app.command()
def table5(
    results: Annotated[
        list[str] | None,
        typer.Argument(
            help="NAME=FOLDER of 'medsegdiff evaluate --out', for agreement, GED and Dice.", show_default=False
        ),
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=8, help="Side of the image; default: the presets'.", show_default=False)
    ] = None,
    members: Annotated[
        int | None, typer.Option(min=1, help="The same for all; default: the presets'.", show_default=False)
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Of the sampler, the same for all.", show_default=False)
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="text, csv, latex or markdown.")] = Format.TEXT,
    out: Annotated[Path | None, typer.Option(dir_okay=False, help="File to write instead of printing.")] = None,
) -> None:
    """Count parameters, operations, members and calls of the diffusion models; needs no data and no training.

    Example: `medsegdiff reproduce table5 --members 10 --steps 100`
    """
    from medsegdiff.paper.efficiency import count_costs, with_scores
    from medsegdiff.paper.formats import FORMATS
    from medsegdiff.paper.layout import lay_out
    from medsegdiff.paper.results import parse_result

    table, rows = count_costs(size=size, members=members, steps=steps)
    rows = with_scores(table, rows, [parse_result(text, table) for text in results or []])
    text = FORMATS[format_.value](lay_out(table, rows))
    if out is None:
        give(text)
        return
    from medsegdiff.io.atomic import write_text

    write_text(out, text + "\n")
    say(f"table5: {out}")


@app.command()
def figure3(
    data: Annotated[Path, typer.Option(help="Data folder that the runs were trained on.")],
    run: Annotated[list[Path], typer.Option("--runs", help="Folder of a run; may be repeated.")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for curve.csv, curve.json, curve.png.")] = Path(
        "figure3"
    ),
    members: Annotated[int, typer.Option(min=1, help="Size of the full ensemble.")] = 100,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Of the sampler; default: the model's.", show_default=False)
    ] = None,
    cases: Annotated[
        int | None, typer.Option(min=1, help="Take so many of the test part; default: all.", show_default=False)
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps; default: the best there is.")] = None,
) -> None:
    """Measure Dice against the number of members, for runs of one's own.

    Example: `medsegdiff reproduce figure3 --data data/isic --runs runs/v2 --runs runs/v1`

    The same as `medsegdiff benchmark ensemble`, which has more options.
    """
    from medsegdiff.paper.figure3 import Plan, benchmark_ensemble

    plan = Plan(members=members, steps=steps, cases=cases)
    found = benchmark_ensemble(run, data, plan, device=device, track=track)
    found.save(out)
    say(f"Curves: {out / 'curve.csv'}, {out / 'curve.json'} · look at {out / 'curve.png'}")
    show(found)
