"""``medsegdiff evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from medsegdiff.cli.console import err, give, say, track
from medsegdiff.presets import load_preset

if TYPE_CHECKING:
    from medsegdiff.evaluation import Evaluation


def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Folder of masks, or what 'medsegdiff segment' wrote.")],
    references: Annotated[Path, typer.Argument(help="Folder of masks, or a data folder with masks/.")],
    out: Annotated[Path | None, typer.Option(file_okay=False, help="Folder for metrics.csv and metrics.json.")] = None,
    split: Annotated[str | None, typer.Option(help="Part of split.csv that the predictions must cover.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="How to read the references: data.mask_folders=raters, data.task=binary, …"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all scores as JSON.")] = False,
) -> None:
    """Score masks against references: Dice, IoU, HD95, with bootstrap intervals.

    Example: `medsegdiff evaluate masks data/isic/masks --out scores`
    """
    from medsegdiff.evaluation import evaluate as score
    from medsegdiff.io.atomic import to_json

    data = load_preset("v2-tiny", set_ or []).data
    result = score(predictions, references, split=split, data=data, track=track)
    if out is not None:
        result.save(out)
        say(f"Scores: {out / 'metrics.csv'}, {out / 'metrics.json'}")
    if as_json:
        give(to_json(result.to_dict()))
    else:
        show(result)


def show(result: Evaluation) -> None:
    """Print the summary as a table, with the conventions behind the numbers.

    Args:
        result: The scores.
    """
    from medsegdiff.evaluation import CONVENTIONS

    table = Table(title=f"{len(result.cases)} cases")
    for heading in ("metric", "mean", "95 % interval"):
        table.add_column(heading, justify="left" if heading == "metric" else "right")
    for name, numbers in result.summary.items():
        interval = "–" if numbers["ci95"] is None else "{:.4f} – {:.4f}".format(*numbers["ci95"])
        table.add_row(name, f"{numbers['mean']:.4f}", interval)
    err.print(table)
    for name, text in CONVENTIONS.items():
        say(f"{name}: {text}")
    say(f"empty masks: {result.empty}")
    for name, numbers in result.summary.items():
        give(f"{name} {numbers['mean']:.6f}")
