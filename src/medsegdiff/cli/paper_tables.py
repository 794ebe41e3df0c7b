"""``medsegdiff paper table1``, ``table2`` and ``table3``; and laying results of one's own beside any table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from medsegdiff.cli import command, options
from medsegdiff.cli.console import info, people, result, track
from medsegdiff.errors import ConfigError

if TYPE_CHECKING:
    from medsegdiff.paper.comparison_plan import ComparisonPlan
    from medsegdiff.paper.results import Costs

TEXT = options.Format.TEXT
Results = Annotated[
    list[str] | None,
    typer.Argument(
        help="NAME=FOLDER of 'medsegdiff evaluate --out'; NAME/DATA=FOLDER for tables 1 and 4, DATA as the table heads "
        "its columns. Table 5 also takes folders of segmentations and runs; a name may have several.",
        show_default=False,
    ),
]
Budget = Annotated[
    float | None, typer.Option(min=0.001, help="Minutes of training steps for each run.", show_default=False)
]
Clock = Annotated[
    Literal["wall", "processor"],
    typer.Option(
        help="What the budget is measured with; processor: time of the CPU, of all threads together, which other work "
        "does not disturb (of a GPU it tells nothing)."
    ),
]
Data = Annotated[
    list[str] | None,
    typer.Option(
        help="NAME=FOLDER to train on (or NAME=phantom), NAME as the table heads its columns; other:NAME=FOLDER for "
        "data that the paper has not. May be repeated. Tables 2 and 3 need no name.",
        show_default=False,
    ),
]
Systems = Annotated[
    list[str] | None,
    typer.Option(
        help="Only these rows of the table, or presets; with commas between, or repeated. Default: all rows.",
        show_default=False,
    ),
]
Size = Annotated[
    Literal["tiny", "full"] | None,
    typer.Option(help="Networks for two CPU cores, or as published; default: by the device.", show_default=False),
]
Place = Annotated[
    Path | None,
    options.out_file(
        "Folder of the runs, default the table's name: a stopped one is gone on with. Of RESULTS, a file."
    ),
]


def lay_out_results(name: str, results: list[str], format_: options.Format, file: Path | None) -> None:
    """Lay results beside the paper's numbers."""
    from medsegdiff.paper.layout import lay_out
    from medsegdiff.paper.results import gather, parse_result
    from medsegdiff.paper.tables import COSTS, load_table

    asked = load_table(name)
    given = [parse_result(text, asked) for text in results]
    costly = given and any(column.metric in COSTS for column in asked.columns)
    show(name, lay_out(asked, gather(asked, given, costs=_costs() if costly else None)), format_, file)


def show(name: str, printed: Any, format_: options.Format, file: Path | None) -> None:
    """Print a table, or write it into a file."""
    from medsegdiff.paper.formats import FORMATS

    text = FORMATS[format_.value](printed)
    if file is None:
        result(text)
        return
    from medsegdiff.io.atomic import write_text

    write_text(file, text + "\n")
    info(f"{name}: {file}")


def _costs() -> Costs:
    """Import what counts operations, which the other tables do without."""
    from medsegdiff.paper.costs import costs

    return costs


def comparison(name: str, example: str, training: str) -> Callable[..., None]:
    """Make the command of a table that compares systems."""

    def table(
        results: Results = None,
        data: Data = None,
        budget: Budget = None,
        clock: Clock = "wall",
        seeds: Annotated[int, typer.Option(min=1, help="Runs of each system on each data set.")] = 1,
        systems: Systems = None,
        recipe: Annotated[
            Literal["own", "common"],
            typer.Option(help="Train each system by its own recipe, or all as V2 is trained."),
        ] = "own",
        size: Size = None,
        place: Place = None,
        set_: options.Set = None,
        members: options.Members = None,
        steps: options.Steps = None,
        cases: Annotated[
            int | None,
            typer.Option(min=1, help="Score so many cases, evenly spread; default: all.", show_default=False),
        ] = None,
        format_: options.TableFormat = TEXT,
        device: options.Device = None,
    ) -> None:
        asked = (systems, size, set_, members, steps, cases, device)
        if data is None and budget is None and not any(asked):
            lay_out_results(name, results or [], format_, place)
            return
        if not data or budget is None or results:
            raise ConfigError(f"Training {name} takes --data and --budget, and no results of other runs.")
        chosen = [part.strip() for text in systems or () for part in text.split(",") if part.strip()]
        plan, lacking = _planned(
            name,
            data,
            chosen,
            size=size,
            device=device,
            minutes=budget,
            clock=clock,
            seeds=seeds,
            recipe=recipe,
            changes=tuple(set_ or ()),
            members=members,
            steps=steps,
            cases=cases,
        )
        _reproduce(plan, place or Path(name), lacking, format_=format_, device=device)

    table.__doc__ = f"""Print {name}, our results beside the paper's numbers; with --data, train its systems for them.

    Example: `medsegdiff paper {name} {example}` · `medsegdiff paper {name} {training}`

    A row of ours stands below the paper's row of the same name; without results the paper's alone are printed.
    Training takes systems × data sets × seeds × budget, and segmentation and scores on top; what is done is kept.
    The same command may run several times at once: each takes the runs that no other has in hand.
    """
    return table


def _planned(
    name: str, data: Sequence[str], systems: Sequence[str], *, size: str | None, device: str | None, **options_: Any
) -> tuple[ComparisonPlan, list[str]]:
    """Look up what is named; the size goes by the device if nobody says."""
    from medsegdiff.hardware import pick_device
    from medsegdiff.paper.comparison_plan import ComparisonPlan
    from medsegdiff.paper.given import parse_given
    from medsegdiff.paper.systems import find_systems
    from medsegdiff.paper.tables import load_table

    table, given = load_table(name), parse_given(data, load_table(name))
    sized: Any = size or ("tiny" if pick_device(device).type == "cpu" else "full")
    found, lacking = find_systems(table, systems, size=sized)
    return ComparisonPlan(table, given, tuple(found), size=sized, **options_), lacking


def _reproduce(
    plan: ComparisonPlan, folder: Path, lacking: Sequence[str], *, format_: options.Format, device: str | None
) -> None:
    """Train what is missing, print the table, and end as the runs did."""
    from medsegdiff.errors import some
    from medsegdiff.paper.comparison import collect, compare_systems
    from medsegdiff.paper.formats import FORMATS

    left_out = [f"There is no {plan.size} preset for {some(lacking, most=20)}: left out."] if lacking else []
    for words in left_out:
        info(words)
    failed = compare_systems(plan, folder, device=device, console=people, track=track)
    found = collect(plan, folder, notes=[*left_out, *(f"{run}: {why}" for run, why in failed.items())])
    info(f"Results: {some(list(map(str, found.save(folder))))}")
    result(FORMATS[format_.value](found.printed))
    command.ended(failed=len(failed), done=len(found.rows))
