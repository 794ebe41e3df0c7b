"""``medsegdiff paper``: its tables and its figure 3, with results of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table
from typer.core import TyperGroup

from medsegdiff.cli import command, options
from medsegdiff.cli.console import info, out, people, result, track
from medsegdiff.cli.paper_tables import TEXT, Budget, Clock, Results, comparison, lay_out_results, show
from medsegdiff.errors import ConfigError, nearest, some

if TYPE_CHECKING:
    from medsegdiff.paper.figure3 import EnsembleBenchmark


class _Experiments(TyperGroup):
    """Tables and the figure; of a wrong name it says which there are."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command of a name, or refuse the name."""
        if not args[0].startswith("-") and args[0] not in self.commands:
            known = sorted(self.commands)
            why = nearest(args[0], known)
            raise ConfigError(f"Nothing of the paper is called '{args[0]}'. Known: {', '.join(known)}.{why}")
        return super().resolve_command(ctx, args)


app = typer.Typer(help="Tables and figure 3 of the paper, ours beside them.", no_args_is_help=True, cls=_Experiments)

File = Annotated[Path | None, options.out_file("File to write instead of printing.")]


def table4(
    results: Results = None,
    data: Annotated[
        str | None, typer.Option(help="Data folder to train on, or phantom: built-in lesions.", show_default=False)
    ] = None,
    budget: Budget = None,
    clock: Clock = "wall",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each row.")] = 3,
    place: Annotated[
        Path | None,
        options.out_file("Folder of the runs, default table4: a stopped one is gone on with. Of RESULTS, a file."),
    ] = None,
    row: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this row; may be repeated. "
            "Beside the paper's: U-SA+cross-attention, SS-Former alone, MedSegDiff-V2+image, MedSegDiff-V2+sum."
        ),
    ] = None,
    preset: options.Preset = None,
    set_: options.Set = None,
    members: options.Members = None,
    steps: options.Steps = None,
    format_: options.TableFormat = TEXT,
    device: options.Device = None,
) -> None:
    """Ablate U-SA, SS-Former and NBP-Filter: train each row for the same time, with several seeds, and score it.

    Example: `medsegdiff paper table4 --data phantom --budget 3`

    Takes rows × seeds × budget, and validation, segmentation and scores on top. All rows share the network and the
    recipe of --preset (v2-tiny). Without --data and --budget, results of one's own are laid beside the paper's.
    """
    if data is None and budget is None:
        lay_out_results("table4", results or [], format_, place)
        return
    if data is None or budget is None or results:
        raise ConfigError("Training table 4 takes --data and --budget, and no results of other runs.")
    from medsegdiff.paper.ablation import ablate, collect
    from medsegdiff.paper.ablation_plan import AblationPlan, find_variants
    from medsegdiff.paper.formats import FORMATS

    folder = place or Path("table4")
    rows = find_variants(row or ())
    plan = AblationPlan(data, budget, seeds, preset or "v2-tiny", tuple(set_ or ()), members, steps, clock)
    failed = ablate(plan, rows, folder, device=device, console=people, track=track)
    found = collect(plan, rows, folder, notes=[f"{run}: {why}" for run, why in failed.items()])
    info(f"Results: {some(list(map(str, found.save(folder))))}")
    result(FORMATS[format_.value](found.printed))
    command.ended(failed=len(failed), done=len(rows) * seeds - len(failed))


def table5(
    results: Results = None,
    count: Annotated[
        bool, typer.Option("--count", help="Count what the presets cost that stand for its rows.")
    ] = False,
    size: Annotated[
        int | None, typer.Option(min=8, help="Side of the image, to count; default: the presets'.", show_default=False)
    ] = None,
    members: Annotated[
        int | None, typer.Option(min=1, help="To count, the same for all; default: the presets'.", show_default=False)
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Of the sampler, to count, the same for all.", show_default=False)
    ] = None,
    format_: options.TableFormat = TEXT,
    file: File = None,
) -> None:
    """Print table 5; --count counts parameters, operations, members and calls of the diffusion models: no data needed.

    Example: `medsegdiff paper table5 --count --members 10 --steps 100`

    Results stand below the paper's rows: NAME=FOLDER of scores, segmentations and runs.
    """
    if not (count or size or members or steps):
        lay_out_results("table5", results or [], format_, file)
        return
    from medsegdiff.paper.costs import count_costs, with_scores
    from medsegdiff.paper.layout import lay_out
    from medsegdiff.paper.results import parse_result

    table, rows = count_costs(size=size, members=members, steps=steps)
    rows = with_scores(table, rows, [parse_result(text, table) for text in results or []])
    show("table5", lay_out(table, rows), format_, file)


def figure3(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="RUN… DATA", help="Folders of runs, then the data.")
    ] = None,
    folder: Annotated[Path | None, options.out_folder("Folder for curve.csv, curve.json and curve.png.")] = None,
    members: Annotated[int, typer.Option(min=1, help="Size of the full ensemble, drawn once.")] = 100,
    fusion: options.Fusion = "staple",
    repeats: Annotated[int, typer.Option(min=1, help="Subsets drawn of each size.")] = 20,
    split: Annotated[str, typer.Option(help="Part of the run's split: train, val, test, all.")] = "test",
    cases: Annotated[
        int | None, typer.Option(min=1, help="Take so many cases, evenly spread; default: all.", show_default=False)
    ] = None,
    steps: options.Steps = None,
    sampler: options.Sampler = None,
    seed: Annotated[int, typer.Option(help="Members and subsets follow from it.")] = 0,
    device: options.Device = None,
    as_json: options.AsJson = False,
    data: Annotated[Path | None, typer.Option(hidden=True)] = None,
    run: Annotated[list[Path] | None, typer.Option("--runs", hidden=True)] = None,
) -> None:
    """Measure Dice against the number of members, and how many are enough.

    Example: `medsegdiff paper figure3 runs/v2 runs/unet data/isic --out figure3`
    """
    from medsegdiff.io.atomic import to_json
    from medsegdiff.paper.figure3 import EnsemblePlan, benchmark_ensemble

    places = [*(run or []), *(paths or []), *([data] if data else [])]
    if len(places) < 2:
        given = f"Only {places[0]} is given" if places else "Nothing is given"
        raise ConfigError(f"{given}; give one or several folders of runs, then the data.")
    plan = EnsemblePlan(members, fusion or "staple", repeats, steps, sampler, split, cases, seed)
    found = benchmark_ensemble(places[:-1], places[-1], plan, device=device, track=track)
    if run and folder is None:
        folder = Path("figure3")
    if folder is not None:
        found.save(folder)
        info(f"Curves: {folder / 'curve.csv'}, {folder / 'curve.json'} · look at {folder / 'curve.png'}")
    if as_json:
        result(to_json(found.to_dict()))
    else:
        show_curves(found)


def show_curves(found: EnsembleBenchmark) -> None:
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
        info(f"{name}: {text}")


def _written(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


for _name, _example, _training in (
    ("table1", "MedSegDiff-V2/ISIC=scores/isic", "--data isic=data/isic --budget 10"),
    ("table2", "V2=scores", "--data data/amos --budget 60"),
    ("table3", "V2=scores", "--data data/btcv --budget 60"),
):
    command.add(app, _name, comparison(_name, _example, _training))
command.add(app, "table4", table4)
command.add(app, "table5", table5, long=False)
command.add(app, "figure3", figure3)
