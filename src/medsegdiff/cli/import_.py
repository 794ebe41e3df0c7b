"""``medsegdiff import``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from medsegdiff.cli import options
from medsegdiff.cli.console import info, result


def import_(
    file: Annotated[Path, typer.Argument(help="Checkpoint of official code: emasavedmodel….pt, epoch_149.pth …")],
    out: Annotated[Path, options.out_folder("Folder of the run that is made of it.")],
    heads: Annotated[int, typer.Option(min=1, help="MedSegDiff's --num_heads, which the weights do not tell.")] = 1,
    image_size: Annotated[
        int | None,
        typer.Option(min=8, help="Side of their images; default: found from the weights.", show_default=False),
    ] = None,
    structure: Annotated[
        list[str] | None, typer.Option(help="Name of a mask channel; once for each, in order.", show_default=False)
    ] = None,
    values: Annotated[
        Literal["standard", "unit", "raw"] | None,
        typer.Option(help="How images entered: unit (/255), raw or standard; default: unit for pictures, else raw."),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Take over weights trained with official code: MedSegDiff's, version 1 or "new", or that of a compared system.

    Those are TransUNet, BEAL, FAT-Net, BAT and MTSeg (TRFE-Net); which it is, the weights tell. Only tensors are read
    from the file: code that it may hold does not run.

    Example: `medsegdiff import emasavedmodel_0.9999_100000.pt --out runs/theirs`
    """
    from medsegdiff.authors import import_checkpoint
    from medsegdiff.io.atomic import to_json

    classes = tuple(structure) if structure else None
    done = import_checkpoint(file, out, heads=heads, image_size=image_size, classes=classes, values=values)
    data = done.config.data
    info(
        f"{done.network}: {done.parameters / 1e6:.1f} M weights, {data.channels} image channels, {data.image_size} px."
    )
    info(f"Images enter as '{data.values}', masks are 0 and 1, as in the authors' code; --values changes the first.")
    info(f"Segment with: medsegdiff segment IMAGES --model {out} --out masks")
    info(f"Train on with: medsegdiff train DATA --out {out} --resume, or, to keep it: --out NEW --start {out}")
    facts = {"out": str(out), "network": done.network, "parameters": done.parameters, "made_anew": done.made_anew}
    result(to_json(facts) if as_json else str(out))
