"""``medsegdiff data``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medsegdiff.cli.console import give, say, track
from medsegdiff.config import load_preset

if TYPE_CHECKING:
    from medsegdiff.inspection import Inspection

app = typer.Typer(help="Look at data before training.", no_args_is_help=True)


@app.command("check")
def check(
    folder: Annotated[Path, typer.Argument(help="Folder with images/ and masks/.")],
    out: Annotated[Path, typer.Option(help="Where the preview picture goes.")] = Path("data-check.png"),
    set_: Annotated[list[str] | None, typer.Option("--set", help="How to read it: data.key=value.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Check pairs, sizes, values, empty masks and near-duplicates across splits, and draw a preview.

    Example: `medsegdiff data check data/isic`
    """
    from medsegdiff.inspection import inspect_folder
    from medsegdiff.io.atomic import to_json

    found = inspect_folder(folder, load_preset("v2-tiny", set_ or []).data, picture=out, track=track)
    if as_json:
        give(to_json(found.to_dict()))
    else:
        show(found)
    if out.exists():
        say(f"Look at {out}")
    if not found.ok:
        raise typer.Exit(1)


def show(found: Inspection) -> None:
    """Print the findings.

    Args:
        found: By `inspect_folder`.
    """
    give(f"images          {found.images}  {found.split}")
    give(f"sizes           {found.sizes}  {found.channels}")
    give(f"masks           {found.masks}; values {found.values}")
    give(f"task            {found.task}: {', '.join(found.classes)}")
    give(f"empty masks     {len(found.empty_masks)}  {', '.join(found.empty_masks[:8])}")
    give(f"near-duplicates {len(found.near_duplicates)} across splits")
    for pair in found.near_duplicates[:8]:
        give(f"  {pair['a']} ({pair['splits'][0]}) ~ {pair['b']} ({pair['splits'][1]}) {pair['correlation']:.3f}")
    give(f"problems        {len(found.problems)}")
    for problem in found.problems[:20]:
        give(f"  {problem}")
    if len(found.problems) > 20:
        give(f"  and {len(found.problems) - 20} more (all with --json)")
    give("Ready to train." if found.ok else "Mend the problems first.")
