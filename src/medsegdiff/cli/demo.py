"""``medsegdiff demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medsegdiff.cli import options
from medsegdiff.cli.console import info, people, result, track


def demo(
    out: Annotated[Path, options.out_folder("Folder for data, run, masks and report; default: demo.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Of data and training.")] = 0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Training steps; fewer are quicker and worse.", show_default=False)
    ] = None,
) -> None:
    """Show the whole path on built-in data: train, segment, fuse, evaluate, report. Minutes on two cores.

    Example: `medsegdiff demo --out demo`
    """
    from medsegdiff.demo import run_demo

    made = run_demo(out, seed=seed, steps=steps, console=people, track=track)
    info(f"Dice: fused mask {made.fused:.4f}, one member {made.member:.4f}, anchor {made.anchor:.4f}.")
    info("Look at the report:")
    result(str(made.report))
