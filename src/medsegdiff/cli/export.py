"""``medsegdiff export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from medsegdiff.cli import options
from medsegdiff.cli.console import info, result
from medsegdiff.errors import ConfigError


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    out: Annotated[Path, typer.Argument(help="Folder for the graphs and what belongs to them.")],
    to: Annotated[
        Literal["onnx", "torch-export"],
        typer.Option(help="onnx: for onnxruntime and others, without PyTorch; torch-export: programs for PyTorch."),
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
    from medsegdiff.export.folder import export_run
    from medsegdiff.io.atomic import to_json

    asked: dict[str, Any] = {
        "members": members,
        "steps": steps,
        "sampler": sampler,
        "spacing": spacing,
        "fusion": fusion,
    }
    done = export_run(run, out, to=to, size=size_of(size), weights=weights, overwrite=overwrite, noted=info, **asked)
    graphs = ", ".join(f"{name} {count / 1e6:.1f} MB" for name, count in done.bytes.items())
    info(f"Written: {graphs}; {len(done.facts.table)} steps, {done.facts.sampling.members} members.")
    if done.apart is not None:
        info(f"Graphs and PyTorch differ by {done.apart:.1g} at most.")
        info(f"Segment with: python -m medsegdiff.runtime {out} IMAGE --out masks")
    facts = {"out": str(out), "to": to, "bytes": done.bytes, "apart": done.apart}
    result(to_json(facts) if as_json else str(out))


def size_of(text: str | None) -> tuple[int, int] | None:
    """Read ``--size``."""
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise ConfigError(f"--size is {text}; allowed are HEIGHTxWIDTH, such as 512x384.")
    return int(sides[0]), int(sides[1])
