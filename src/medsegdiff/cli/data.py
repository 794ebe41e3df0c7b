"""``medsegdiff data``: look at data before training, and prepare them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from medsegdiff.cli import command, complete, options
from medsegdiff.cli.console import info, result, track, warn
from medsegdiff.cli.console import out as stdout
from medsegdiff.errors import ConfigError, some

if TYPE_CHECKING:
    from medsegdiff.data.inspect import Inspection

app = typer.Typer(help="Look at data before training, and prepare them.", no_args_is_help=True)


def check(
    folder: Annotated[Path, typer.Argument(help="Folder or manifest, in any layout.")],
    out: Annotated[Path | None, options.out_file("A preview picture to draw, .png.")] = None,
    set_: options.Reading = None,
    as_json: options.AsJson = False,
) -> None:
    """Check pairs, sizes, values, empty masks and near-duplicates across splits; draw a preview.

    Example: `medsegdiff data check data/isic --out preview.png`
    """
    from medsegdiff.config.load import load_preset
    from medsegdiff.data.inspect import inspect_folder
    from medsegdiff.io.atomic import to_json
    from medsegdiff.pictures.cases import preview

    if out is not None and out.suffix.lower() != ".png":
        raise ConfigError(f"--out is {out}; it names the preview picture and ends in .png.")
    found = inspect_folder(folder, load_preset("v2-tiny", set_ or []).data, track=track)
    if out is not None and found.drawn is not None and found.shown:
        preview(found.shown, found.drawn, out)
    elif out is not None:
        out.unlink(missing_ok=True)  # that of another folder would mislead
    if as_json:
        result(to_json(found.to_dict()))
    else:
        show(found)
    if out is not None and out.exists():
        info(f"Look at {out}")
    if not found.ok:
        raise typer.Exit(command.Exit.FAILED)


def show(found: Inspection) -> None:
    """Print the findings; of what can't be listed at all, why."""
    if not found.layout:
        _understood(found)
        _reasons(found)
        return
    result(f"layout          {found.layout}")
    _understood(found)
    result(f"images          {found.images}  {_counts(found.split)}")
    result(f"sizes           {_counts(found.sizes)}; {_counts(found.channels)}")
    if found.spacing:
        spans = (f"{m:g} ({low:g} … {high:g})" for m, low, high in zip(*found.spacing.values(), strict=True))
        result(f"spacing in mm   {' × '.join(spans)}")
    result(f"masks           {found.masks}; values {some([str(v) for v in found.values], most=12)}")
    result(f"task            {found.task}: {', '.join(found.classes)}")
    for name, of in found.labels.items():
        result(f"  {name:<20} {of['share']:8.3%} of the pixels, in {of['cases']:.0f} cases")
    result(f"empty masks     {len(found.empty_masks)}  {some(found.empty_masks)}")
    if found.near_duplicates is None:
        result("near-duplicates not looked for: the split is not known")
    else:
        result(f"near-duplicates {len(found.near_duplicates)} across parts")
        _listed([_in_words(pair) for pair in found.near_duplicates], most=8)
    result(f"leaks           {len(found.leaks)} groups in several parts  {some(found.leaks)}")
    _reasons(found)


def _understood(found: Inspection) -> None:
    for line in found.understood:
        result(f"understood      {line}")


def _reasons(found: Inspection) -> None:
    """Print what is odd, and what has to be mended."""
    for heading, lines in (("remarks", found.remarks), ("problems", found.problems)):
        result(f"{heading:<15} {len(lines)}")
        _listed(lines, most=20)
    result("Ready to train." if found.ok else "Mend the problems first.")


def _listed(lines: Sequence[str], *, most: int) -> None:
    """Print the first of many lines."""
    for line in lines[:most]:
        result(f"  {line}")
    if len(lines) > most:
        result(f"  and {len(lines) - most} more (all with --json)")


def _in_words(pair: dict[str, Any]) -> str:
    """Tell of two images that look the same."""
    a, b = pair["splits"]
    return f"{pair['a']} ({a}) ~ {pair['b']} ({b}) correlation {pair['correlation']:.3f}"


def _counts(counts: dict[str, int]) -> str:
    return some([f"{count} {name}" for name, count in counts.items()], most=8)


def masks(
    series: Annotated[Path, typer.Argument(help="Folder with the slices of a DICOM series, or a file of many frames.")],
    file: Annotated[Path, typer.Argument(help="DICOM-SEG or RTSTRUCT that was drawn on it.")],
    out: Annotated[Path, options.out_folder("Folder for the masks, a sub-folder per structure.")],
) -> None:
    """Turn DICOM-SEG or RTSTRUCT into NIfTI masks on the grid of their series.

    Example: `medsegdiff data masks data/images/patient1 patient1-rtstruct.dcm --out data/masks`
    """
    from medsegdiff.data.layouts.dicom_masks import convert_masks

    for path in convert_masks(series, file, out):
        info(f"Wrote {path}")
    result(str(out))


def convert(
    source: Annotated[Path, typer.Argument(help="A data set in any layout: a folder, or a manifest.")],
    to: Annotated[str, typer.Option(help="nnunet, msd, folder or slices.", autocompletion=complete.conversions)],
    place: Annotated[Path | None, typer.Argument(hidden=True)] = None,
    out: Annotated[Path | None, options.out_folder("A new folder; for nnunet named DatasetXXX_Name.")] = None,
    plane: Annotated[
        Literal["auto", "sagittal", "coronal", "axial"] | None,
        typer.Option(
            help="How slices are cut; default: axially, or across clearly thicker voxels.", show_default=False
        ),
    ] = None,
    only_foreground: Annotated[
        bool, typer.Option("--only-foreground", help="Write only slices that hold a structure.")
    ] = False,
    set_: options.Reading = None,
) -> None:
    """Write a data set in another layout: for nnU-Net, for the Decathlon, as a plain folder, or volumes as slices.

    Example: `medsegdiff data convert data/liver --to nnunet --out data/Dataset012_Liver`
    """
    from medsegdiff.config.load import load_preset
    from medsegdiff.data.convert import convert as run

    out = out or place
    if out is None:
        raise ConfigError("Missing option '--out': name the new folder that the data set is written to.")
    if to != "slices" and (plane is not None or only_foreground):
        raise ConfigError(f"--plane and --only-foreground are for --to slices; --to is '{to}'. Leave them out.")
    config = load_preset("v2-tiny", [*(set_ or []), *([f"data.plane={plane}"] if plane else [])]).data
    done = run(source, out, to=to, config=config, only_foreground=only_foreground, track=track)
    for line in done.passed_over:
        warn(line)
    for note in done.notes:
        info(note)
    for name, reason in done.failed.items():
        info(f"Left out {name}: {reason}")
    info(f"Converted {len(done.done)} of {len(done.done) + len(done.failed)} cases.")
    result(str(out))
    command.ended(failed=len(done.failed), done=len(done.done))


def plan(
    data: Annotated[str, typer.Argument(help="Folder with images and masks, or a built-in data set (phantom).")],
    memory: Annotated[
        float | None,
        typer.Option(min=0.1, help="GB that training may take. [default: all of the GPU, or half of the machine's]"),
    ] = None,
    preset: options.Preset = None,
    file: Annotated[Path | None, options.out_file("A file to write the plan to, .yaml: a preset for training.")] = None,
    set_: options.Set = None,
    device: options.Device = None,
    as_json: options.AsJson = False,
) -> None:
    """Look at modality, spacing and sizes, and suggest a preset, the size of images and batches.

    Example: `medsegdiff data plan data/liver --out plan.yaml`, then `medsegdiff train data/liver --preset plan.yaml …`
    """
    if file is not None and file.suffix.lower() not in (".yaml", ".yml"):
        raise ConfigError(f"--out is {file}; it names a preset file and ends in .yaml.")
    from medsegdiff.io.atomic import to_json
    from medsegdiff.training.advise import make_plan, write_plan

    room = None if memory is None else memory * 1e9
    made = make_plan(data, preset=preset, memory=room, device=device, overrides=set_ or [], track=track)
    if file is not None:
        write_plan(made, file)
    if as_json:
        result(to_json(made.to_dict()))
    else:
        table = Table(show_header=False, title=made.data)
        for key, value in made.rows().items():
            table.add_row(key, value)
        stdout.print(table)
    if not made.fits:
        info(f"A single image needs about {made.needed / 1e9:.1f} GB. Choose a smaller --preset or data.image_size.")
    if file is None:
        info("Nothing is written; --out plan.yaml makes a preset of it.")
    else:
        info(f"Train with: medsegdiff train {data} --preset {file} --out RUN")


command.add(app, "check", check)
command.add(app, "plan", plan)
command.add(app, "convert", convert)
command.add(app, "masks", masks, long=False)
