"""``medsegdiff demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medsegdiff.cli.console import err, give, say, track


def demo(
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for data, run, masks and report.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Of data and training.")] = 0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Training steps; fewer are quicker and worse.", show_default=False)
    ] = None,
) -> None:
    """Show the whole path on built-in data: train, segment, fuse, evaluate, report. Minutes on two cores.

    Example: `medsegdiff demo --out demo`
    """
    from medsegdiff.demo import run_demo

    result = run_demo(out, seed=seed, steps=steps, console=err, track=track)
    say(f"Dice: fused mask {result.fused:.4f}, one member {result.member:.4f}, anchor {result.anchor:.4f}.")
    say("Look at the report:")
    give(str(result.report))
