"""``medsegdiff data``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medsegdiff.cli.console import give, say, track
from medsegdiff.cli.convert import convert
from medsegdiff.config.load import load_preset
from medsegdiff.errors import ConfigError, some

if TYPE_CHECKING:
    from medsegdiff.data.inspect import Inspection

app = typer.Typer(help="Look at data before training, and prepare them.", no_args_is_help=True)
app.command("convert")(convert)


@app.command("check")
def check(
    folder: Annotated[Path, typer.Argument(help="Folder or manifest, in any layout.")],
    out: Annotated[Path, typer.Option(help="Where the preview picture goes.")] = Path("data-check.png"),
    set_: Annotated[list[str] | None, typer.Option("--set", help="How to read it: data.key=value.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Check pairs, sizes, values, empty masks and near-duplicates across splits, and draw a preview.

    Example: `medsegdiff data check data/isic`
    """
    from medsegdiff.data.inspect import inspect_folder
    from medsegdiff.io.atomic import to_json
    from medsegdiff.pictures.cases import preview

    if out.suffix.lower() != ".png":
        raise ConfigError(f"--out is {out}; it names the preview picture and ends in .png.")
    out.unlink(missing_ok=True)
    found = inspect_folder(folder, load_preset("v2-tiny", set_ or []).data, track=track)
    if found.drawn is not None:
        preview(found.shown, found.drawn, out)
    if as_json:
        give(to_json(found.to_dict()))
    else:
        show(found)
    if out.exists():
        say(f"Look at {out}")
    if not found.ok:
        raise typer.Exit(1)


def show(found: Inspection) -> None:
    """Print the findings."""
    unlisted = f"; {found.unlisted} are in no part of the split and will not be used" if found.unlisted else ""
    give(f"layout          {found.layout}")
    give(f"images          {found.images}  {_counts(found.split)}{unlisted}")
    give(f"sizes           {_counts(found.sizes)}; {_counts(found.channels)}")
    if found.spacing:
        spans = (f"{m:g} ({low:g} … {high:g})" for m, low, high in zip(*found.spacing.values(), strict=True))
        give(f"spacing in mm   {' × '.join(spans)}")
    give(f"masks           {found.masks}; values {some([str(v) for v in found.values], most=12)}")
    give(f"task            {found.task}: {', '.join(found.classes)}")
    for name, of in found.labels.items():
        give(f"  {name:<20} {of['share']:8.3%} of the pixels, in {of['cases']:.0f} cases")
    give(f"empty masks     {len(found.empty_masks)}  {some(found.empty_masks)}")
    if found.near_duplicates is None:
        give("near-duplicates not looked for: the split is not known")
    else:
        give(f"near-duplicates {len(found.near_duplicates)} across parts")
        for pair in found.near_duplicates[:8]:
            parts = pair["splits"]
            give(f"  {pair['a']} ({parts[0]}) ~ {pair['b']} ({parts[1]}) correlation {pair['correlation']:.3f}")
    give(f"leaks           {len(found.leaks)} groups in several parts  {some(found.leaks)}")
    for heading, lines in (("remarks", found.remarks), ("problems", found.problems)):
        give(f"{heading:<15} {len(lines)}")
        for line in lines[:20]:
            give(f"  {line}")
        if len(lines) > 20:
            give(f"  and {len(lines) - 20} more (all with --json)")
    give("Ready to train." if found.ok else "Mend the problems first.")


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


@app.command("masks")
def masks(
    series: Annotated[Path, typer.Argument(help="Folder with the slices of a DICOM series.")],
    file: Annotated[Path, typer.Argument(help="DICOM-SEG or RTSTRUCT that was drawn on it.")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for the masks, a sub-folder per structure.")],
) -> None:
    """Turn DICOM-SEG or RTSTRUCT into NIfTI masks on the grid of their series.

    Example: `medsegdiff data masks data/images/patient1 patient1-rtstruct.dcm --out data/masks`
    """
    from medsegdiff.io.dicom_masks import convert_masks

    for path in convert_masks(series, file, out):
        say(f"Wrote {path}")
    give(str(out))
