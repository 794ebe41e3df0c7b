"""``medsegdiff pack``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from medsegdiff.cli import options
from medsegdiff.cli.console import info, result
from medsegdiff.errors import ConfigError


def pack(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or name of a model.")],
    out: Annotated[Path, typer.Argument(help="Folder to write, with all that others need.")],
    license_: Annotated[
        str | None,
        typer.Option(
            "--license",
            help="SPDX name of the licence of the weights: apache-2.0, cc0-1.0, cc-by-4.0 …; default: a packed one's.",
            show_default=False,
        ),
    ] = None,
    license_file: Annotated[
        Path | None,
        typer.Option(help="Its text; at hand is that of apache-2.0, and of a packed model.", show_default=False),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Default: that of the folder.", show_default=False)] = None,
    data: Annotated[str, typer.Option(help="What it was trained on, for the card.", show_default=False)] = "",
    data_license: Annotated[str, typer.Option(help="Licence of those data.", show_default=False)] = "",
    use: Annotated[str, typer.Option(help="What it is for, and what not.", show_default=False)] = "",
    scores: Annotated[
        Path | None, typer.Option(help="What 'evaluate --out' wrote: numbers of the card.", show_default=False)
    ] = None,
    notes: Annotated[
        Path | None, typer.Option(help="Markdown file with further sections of the card.", show_default=False)
    ] = None,
    precision: Annotated[
        Literal["fp32", "fp16", "bf16", "int8"] | None,
        typer.Option(
            help="Of the weights in the file; fp16 and bf16 take half, int8 little more than a quarter. "
            "Default: fp32, of a packed model its own.",
            show_default=False,
        ),
    ] = None,
    with_split: Annotated[
        bool,
        typer.Option("--with-split", help="Take split.csv (and seen.csv) along: names may tell of patients."),
    ] = False,
    weights: options.Weights = "best",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what was packed there before.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Pack a run so that others can segment with it: weights, configuration, a card, the licence, hashes of all.

    Example: `medsegdiff pack runs/isic packed --license apache-2.0 --scores scores --data "ISIC 2016, task 1"`

    `medsegdiff segment IMAGES --model packed` uses the folder; so does everybody once it lies on the Hugging Face hub
    (`hf upload ORGANISATION/NAME packed`): `--model ORGANISATION/NAME`. Files that were changed since are refused.
    """
    from medsegdiff.hub.place import place_of
    from medsegdiff.io.atomic import to_json
    from medsegdiff.sharing.card import About
    from medsegdiff.sharing.pack import pack as packed
    from medsegdiff.training.origin import license_of

    folder = place_of(run)
    if not (given := license_ or license_of(folder)):
        raise ConfigError("Under which licence others may use the weights is not told. Add --license apache-2.0, …")
    try:
        further = "" if notes is None else notes.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"--notes {notes}: can't be read ({error}).") from error
    told = About(
        name=name or out.resolve().name,
        license=given,
        data=data,
        data_license=data_license,
        use=use,
        notes=further,
    )
    done = packed(
        folder,
        out,
        told,
        precision=precision,
        weights=weights,
        scores=scores,
        license_file=license_file,
        with_split=with_split,
        overwrite=overwrite,
        noted=info,
    )
    info("Written: " + ", ".join(f"{file} {count / 1e6:.2f} MB" for file, count in done.bytes.items()) + ".")
    info(f"Look at {out / 'README.md'}: what nobody told is named there. Segment with: --model {out}")
    result(to_json({"out": str(out), "bytes": done.bytes}) if as_json else str(out))
