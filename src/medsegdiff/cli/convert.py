"""``medsegdiff data convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from medsegdiff.cli.console import give, say, track
from medsegdiff.config.load import load_preset
from medsegdiff.errors import ConfigError


def convert(
    source: Annotated[Path, typer.Argument(help="A data set in any layout: a folder, or a manifest.")],
    out: Annotated[Path, typer.Argument(help="A new folder; for nnunet named DatasetXXX_Name.")],
    to: Annotated[str, typer.Option(help="nnunet, msd, folder or slices.")],
    plane: Annotated[
        Literal["auto", "sagittal", "coronal", "axial"] | None,
        typer.Option(
            help="How slices are cut; default: axially, or across clearly thicker voxels.", show_default=False
        ),
    ] = None,
    only_foreground: Annotated[
        bool, typer.Option("--only-foreground", help="Write only slices that hold a structure.")
    ] = False,
    set_: Annotated[list[str] | None, typer.Option("--set", help="How to read the source: data.key=value.")] = None,
) -> None:
    """Write a data set in another layout: for nnU-Net, for the Decathlon, as a plain folder, or volumes as slices.

    Example: `medsegdiff data convert data/liver data/Dataset012_Liver --to nnunet`
    """
    from medsegdiff.data.convert import convert as run

    if to != "slices" and (plane is not None or only_foreground):
        raise ConfigError(f"--plane and --only-foreground are for --to slices; --to is '{to}'. Leave them out.")
    config = load_preset("v2-tiny", [*(set_ or []), *([f"data.plane={plane}"] if plane else [])]).data
    done = run(source, out, to=to, config=config, only_foreground=only_foreground, track=track)
    for note in done.notes:
        say(note)
    for name, reason in done.failed.items():
        say(f"Left out {name}: {reason}")
    say(f"Converted {len(done.done)} of {len(done.done) + len(done.failed)} cases.")
    give(str(out))
    if done.failed:
        raise typer.Exit(1)
