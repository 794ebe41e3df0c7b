"""``medsegdiff data plan``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from medsegdiff.cli.console import give, out, say, track
from medsegdiff.errors import ConfigError, some

if TYPE_CHECKING:
    from medsegdiff.data.fingerprint import Fingerprint, Span
    from medsegdiff.training.advise import DataPlan


def plan(
    data: Annotated[str, typer.Argument(help="Folder with images and masks, or a built-in data set (phantom).")],
    memory: Annotated[
        float | None,
        typer.Option(min=0.1, help="GB that training may take. [default: all of the GPU, or half of the machine's]"),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Name of a preset, or a YAML file. [default: by the device]")
    ] = None,
    file: Annotated[Path, typer.Option("--out", help="Where the plan goes: a preset for training.")] = Path(
        "plan.yaml"
    ),
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Fix a value: section.key=value; may be repeated.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Where to train: cpu, cuda, mps. [default: the best]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Look at modality, spacing and sizes, and suggest a preset, the size of images and batches.

    Example: `medsegdiff data plan data/liver --out plan.yaml`, then `medsegdiff train data/liver --preset plan.yaml …`
    """
    if file.suffix.lower() not in (".yaml", ".yml"):
        raise ConfigError(f"--out is {file}; it names a preset file and ends in .yaml.")
    from medsegdiff.io.atomic import to_json
    from medsegdiff.training.advise import make_plan, write_plan

    room = None if memory is None else memory * 1e9
    made = make_plan(data, preset=preset, memory=room, device=device, overrides=set_ or [], track=track)
    write_plan(made, file)
    if as_json:
        give(to_json(made.to_dict()))
    else:
        show(made)
    if not made.fits:
        say(f"A single image needs about {made.needed / 1e9:.1f} GB. Choose a smaller --preset or data.image_size.")
    say(f"Train with: medsegdiff train {data} --preset {file} --out RUN")


def show(made: DataPlan) -> None:
    """Print the plan as a table."""
    table = Table(show_header=False, title=escape(made.data))
    for key, value in (described(made.fingerprint) | suggested(made)).items():
        table.add_row(key, escape(value))
    out.print(table)


def described(found: Fingerprint) -> dict[str, str]:
    """Word what the data are like."""
    from medsegdiff.data.modality import shown_modalities

    labels = found.labels
    rows = {
        "modality": f"{shown_modalities(found.modalities, found.window)} ({found.told})",
        "cases": ", ".join(f"{count} {part}" for part, count in found.cases.items()) + f"; {found.sampled} looked at",
        "size, h × w": spanned(found.size),
        "channels": str(found.channels),
        "classes": f"{labels.task}: {some(labels.classes, most=12)}; {found.foreground:.2%} is inside a structure",
    }
    if found.spacing and found.num_slices:
        rows |= {"spacing in mm": spanned(found.spacing), "slices": f"{spanned(found.num_slices)}, {found.plane}"}
    for channel, values in enumerate(found.intensity):
        inside = found.structure_intensity[channel] if found.structure_intensity else ()
        within = f"; in structures {_percentiles(inside)}" if inside else ""
        rows[f"values of channel {channel}"] = f"{_percentiles(values)}{within}"
    return rows


def suggested(made: DataPlan) -> dict[str, str]:
    """Word what is suggested."""
    accumulated = f" × {made.accumulate} (train.accumulate)" if made.accumulate > 1 else ""
    return {
        "preset": made.preset,
        "image size": f"{made.image_size} px",
        "batch": f"{made.batch_size}{accumulated}: about {made.needed / 1e9:.1f} of {made.memory / 1e9:.1f} GB "
        f"({made.device}, {made.precision})",
        "cache": f"{made.cache_gb:g} GB",
    }


def spanned(span: Span) -> str:
    """Word a range: the median, and from where to where if it is not always the same."""
    parts = (
        f"{median:g}" if low == high else f"{median:g} ({low:g} … {high:g})"
        for median, low, high in zip(span.median, span.low, span.high, strict=True)
    )
    return " × ".join(parts)


def _percentiles(values: tuple[float, ...]) -> str:
    return " / ".join(f"{value:.4g}" for value in values)
