"""``medsegdiff export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from medsegdiff.cli import options
from medsegdiff.cli.console import info, result
from medsegdiff.errors import ConfigError


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or name of a model.")],
    out: Annotated[Path, typer.Argument(help="Folder for the graphs and what belongs to them.")],
    to: Annotated[
        Literal["onnx", "torch-export", "monai"],
        typer.Option(
            help="onnx: for onnxruntime and others, without PyTorch; torch-export: programs for PyTorch; monai: a "
            "bundle that 'python -m monai.bundle run' takes."
        ),
    ] = "onnx",
    size: Annotated[
        str | None,
        typer.Option(help="HEIGHTxWIDTH of the images, where the run does not scale them.", show_default=False),
    ] = None,
    members: options.Members = None,
    steps: options.Steps = None,
    sampler: options.Sampler = None,
    spacing: options.Spacing = None,
    fusion: options.Fusion = None,
    weights: options.Weights = "best",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what was exported there before.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Write a run as graphs, by which other programs segment: with onnxruntime, NumPy and no PyTorch.

    Example: `medsegdiff export runs/isic exported --to onnx`

    `python -m medsegdiff.runtime exported photo.png --out masks` segments with them, as does
    `medsegdiff segment photo.png --model exported --out masks`. Steps and sampler are written down as numbers;
    members and fusion are defaults.
    """
    if to == "monai":
        _refuse(members=members, steps=steps, sampler=sampler, spacing=spacing, fusion=fusion)
        _bundle(run, out, size=size_of(size), weights=weights, overwrite=overwrite, as_json=as_json)
        return
    from medsegdiff.export.folder import export_run
    from medsegdiff.hub.place import place_of
    from medsegdiff.io.atomic import to_json

    asked: dict[str, Any] = {
        "members": members,
        "steps": steps,
        "sampler": sampler,
        "spacing": spacing,
        "fusion": fusion,
    }
    done = export_run(
        place_of(run), out, to=to, size=size_of(size), weights=weights, overwrite=overwrite, noted=info, **asked
    )
    graphs = ", ".join(f"{name} {count / 1e6:.1f} MB" for name, count in done.bytes.items())
    info(f"Written: {graphs}; {len(done.facts.table)} steps, {done.facts.sampling.members} members.")
    if done.apart is not None:
        info(f"Graphs and PyTorch differ by {done.apart:.1g} at most.")
        info(f"Segment with: python -m medsegdiff.runtime {out} IMAGE --out masks")
    facts = {"out": str(out), "to": to, "bytes": done.bytes, "apart": done.apart}
    result(to_json(facts) if as_json else str(out))


def _refuse(**asked: Any) -> None:
    """Refuse options that a bundle, which holds the run itself, has no place for."""
    if given := [name for name, value in asked.items() if value is not None]:
        raise ConfigError(
            f"--{given[0]} is for graphs; a bundle holds the run as it is, and takes members and seed when it is run. "
            "Leave it out."
        )


def _bundle(run: Path, out: Path, **options: Any) -> None:
    """Write a MONAI bundle."""
    from medsegdiff.hub.place import place_of
    from medsegdiff.io.atomic import to_json
    from medsegdiff.sharing.bundle import write_bundle

    as_json = options.pop("as_json")
    written = write_bundle(place_of(run), out, noted=info, **options)
    info("Run it with: pip install 'medsegdiff[bundle]'")
    info(
        f"python -m monai.bundle run --config_file {out}/configs/inference.json --bundle_root {out} "
        "--dataset_dir IMAGES --output_dir MASKS"
    )
    result(to_json({"out": str(out), "to": "monai", "bytes": written}) if as_json else str(out))


def size_of(text: str | None) -> tuple[int, int] | None:
    """Read ``--size``."""
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise ConfigError(f"--size is {text}; allowed are HEIGHTxWIDTH, such as 512x384.")
    return int(sides[0]), int(sides[1])
