"""``medsegdiff collect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medsegdiff.cli import command
from medsegdiff.cli.console import info, result, track
from medsegdiff.cli.segment import say


def collect(
    out: Annotated[Path, typer.Argument(help="What 'medsegdiff segment' wrote.")],
) -> None:
    """Write segment.json and the tables of a folder from the records of its cases, at any time.

    Example: `medsegdiff collect masks`
    """
    from medsegdiff.inference.collect import collect as collected

    tally = collected(out, track=track)
    say(tally, out)
    working = f"; {tally.working} processes still work there" if tally.working else ""
    info(f"{tally.count} images have a result, {len(tally.failed)} have failed{working}.")
    result(str(out))
    command.ended(failed=len(tally.failed), done=tally.count)
