"""``medsegdiff compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from medsegdiff.cli import options
from medsegdiff.cli.console import info, out, result

if TYPE_CHECKING:
    from medsegdiff.evaluation.compare import Comparison


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(help="Folders of 'medsegdiff evaluate --out', or NAME=FOLDER; all are compared with the first."),
    ],
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="dice, dice/CLASS, …; may be repeated. [default: all but those of single structures and raters]"
        ),
    ] = None,
    folder: Annotated[Path | None, options.out_folder("Folder for comparison.json and differences.png.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Compare runs case by case, by paired bootstrap and Wilcoxon's test, and say which differences are real.

    Example: `medsegdiff compare scores/unet scores/v2 --out comparison`
    """
    from medsegdiff.evaluation.compare import compare as compare_scores
    from medsegdiff.evaluation.compare import read_run
    from medsegdiff.io.atomic import to_json

    found = compare_scores([read_run(*_named(text)) for text in runs], metrics=metric or [])
    if folder is not None:
        found.save(folder)
        info(f"Comparison: {folder / 'comparison.json'} · look at {folder / 'differences.png'}")
    if as_json:
        result(to_json(found.to_dict()))
    else:
        show(found)


def _named(text: str) -> tuple[Path, str]:
    """Tell folder and name apart; a folder may itself have = in its name."""
    name, equals, folder = text.partition("=")
    return (Path(folder), name) if equals and not Path(text).is_dir() else (Path(text), "")


def show(found: Comparison) -> None:
    """Print the differences as a table, with the conventions behind the numbers."""
    from medsegdiff.evaluation.compare import CONVENTIONS

    groups = f" in {found.num_groups} groups" if found.num_groups < found.num_cases else ""
    table = Table(
        title=f"{found.num_cases} cases{groups}, compared with {found.runs[0]}",
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
    )
    words = ("metric", "run", "verdict")
    for heading in ("metric", "run", "difference", "95 % interval", "p", "p, Holm", "verdict"):
        table.add_column(
            heading, justify="left" if heading in words else "right", no_wrap=heading not in words, overflow="fold"
        )
    for row in found.differences:
        interval = "–" if row.ci95 is None else "{:+.4f}…{:+.4f}".format(*row.ci95)
        numbers = (f"{row.mean:+.4f}", interval, f"{row.p:.3g}", f"{row.p_holm:.3g}")
        table.add_row(row.metric, row.run, *numbers, row.verdict)
    out.print(table)
    for remark in found.remarks:
        info(f"Note: {remark}")
    for name, text in CONVENTIONS.items():
        info(f"{name}: {text}")
