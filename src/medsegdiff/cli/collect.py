"""``medsegdiff collect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medsegdiff.cli import command
from medsegdiff.cli.console import info, result, track
from medsegdiff.cli.evaluate import keep, show
from medsegdiff.cli.segment import say
from medsegdiff.inference import RECORD


def collect(
    out: Annotated[Path, typer.Argument(help="What 'medsegdiff segment' wrote, or parts of 'medsegdiff evaluate'.")],
) -> None:
    """Write segment.json and the tables of a folder from the records of its cases; or join the parts of an evaluation.

    Example: `medsegdiff collect masks`
    """
    if (out / "parts").is_dir() and not (out / RECORD).exists():
        from medsegdiff.evaluation.scoring import evaluate_parts

        made = evaluate_parts(out, track=track)
        keep(made, out)
        show(made)
        return
    from medsegdiff.inference.collect import collect as collected

    tally = collected(out, track=track)
    say(tally, out)
    working = f"; {tally.working} processes still work there" if tally.working else ""
    info(f"{tally.count} images have a result, {len(tally.failed)} have failed{working}.")
    result(str(out))
    command.ended(failed=len(tally.failed) + tally.missing + tally.left_out.total(), done=tally.count)
