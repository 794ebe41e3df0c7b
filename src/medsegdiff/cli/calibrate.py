"""``medsegdiff calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from medsegdiff.cli import options
from medsegdiff.cli.asked import runs_of
from medsegdiff.cli.console import info, people, result, track

if TYPE_CHECKING:
    from medsegdiff.training.quality import Trust


def calibrate(
    run: Annotated[
        Path, typer.Argument(help="Folder of a run, of several with commas between; quality.json goes into the first.")
    ],
    data: Annotated[Path, typer.Argument(help="Images with references, in any layout that training reads.")],
    split: Annotated[str, typer.Option(help="Part of the run's split; all: every case of DATA.")] = "val",
    good: Annotated[float, typer.Option(help="Dice from which a mask is good.")] = 0.8,
    risk: Annotated[float, typer.Option(help="Share of accepted patients with a bad mask that is allowed.")] = 0.05,
    out: Annotated[Path | None, options.out_folder("Folder in which the segmentations stay.")] = None,
    device: options.Device = None,
    as_json: options.AsJson = False,
) -> None:
    """Learn from cases with references when a human must look: predicted Dice, a bound, which masks may pass unseen.

    Example: `medsegdiff calibrate runs/isic data/isic --good 0.8 --risk 0.05`

    'segment' then writes quality.csv and quality.html, the worst first, and cleans masks where that was found to help.
    """
    from medsegdiff.hub.place import own_folder
    from medsegdiff.io.atomic import to_json
    from medsegdiff.training.quality import calibrate_quality, promise

    runs = runs_of([run])
    own_folder(str(run) if run.exists() else str(run).split(",")[0].strip())
    found = calibrate_quality(
        runs,
        data,
        split=split,
        good=good,
        risk=risk,
        out=out,
        device=device,
        track=track,
        noted=info,
    )
    people.print(_table(found))
    for name, how in found.model.cleaning.items():
        info(f"{name}: {how}. {found.gains[name]}")
    if not found.model.cleaning:
        info("Cleaning helps nowhere beyond chance; nothing is cleaned.")
    for name, quality in found.model.structures.items():
        info(f"{name}: {promise(found.model, quality)}")
    info(f"Written: {found.file}. 'medsegdiff segment' now says which masks a human must see.")
    result(to_json(found.model.model_dump(mode="json")) if as_json else str(found.file))


def _table(found: Trust) -> Table:
    """List how well each score ranks the cases."""
    from medsegdiff.inference.scores import SCORES

    model = found.model
    whose = f"{model.cases} cases of {model.patients} patients"
    table = Table(title=f"Which score ranks {whose} best? AURC, lower is better; ← is taken")
    table.add_column("score")
    for name in model.structures:
        table.add_column(name, justify="right")
    for score in (*SCORES, "random", "oracle"):
        cells = [_cell(of.aurc.get(score), chosen=score == of.score) for of in model.structures.values()]
        if any(cells):
            table.add_row(f"{score}: {SCORES[score]}" if score in SCORES else score, *cells)
    return table


def _cell(value: float | None, *, chosen: bool) -> str:
    return "" if value is None else f"{value:.4f}" + (" ←" if chosen else "")
