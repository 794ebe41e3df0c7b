"""``medsegdiff benchmark``: what presets cost on this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.table import Table

from medsegdiff.cli import command, options
from medsegdiff.cli.console import info, out, result

app = typer.Typer(help="Measure what presets cost on this machine.", no_args_is_help=True)


def speed(
    presets: options.Presets = None,
    size: Annotated[int, typer.Option(min=16, help="Side of the image.")] = 256,
    members: Annotated[int, typer.Option(min=1, help="Members of the ensemble.")] = 10,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of the sampler. [default: the preset's]", show_default=False)
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="How often each is run, in turn.")] = 3,
    device: options.Device = None,
    precision: Annotated[
        options.Precisions,
        typer.Option(help="auto: as the device is faster; of the reference, what is measured faster."),
    ] = "auto",
    patience: Annotated[
        float, typer.Option(min=0.1, help="Seconds for the steps of a preset; beyond, the rest is extrapolated.")
    ] = 60.0,
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the presets' steps first.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Measure how long an ensemble takes, beside 20 forward passes of the UNet that nnU-Net would plan.

    Networks are untrained, the image is random; nothing is downloaded or kept.

    Example: `medsegdiff benchmark speed v2-tiny --size 128 --members 10 --json`
    """
    from medsegdiff.benchmark.speed import Conditions, default_presets, measure_speed
    from medsegdiff.io.atomic import to_json

    conditions = Conditions(size, members, steps, repeats, device, precision, patience, compiled)
    found = measure_speed(presets or default_presets(), conditions, say=info)
    if as_json:
        result(to_json(found))
        return
    show_machine(found["machine"])
    show_reference(found["reference"])
    for name, preset in found["presets"].items():
        show_preset(name, preset)
    for note in found["notes"]:
        info(note)


def show_machine(machine: dict[str, Any]) -> None:
    """Print on which machine it was measured."""
    result(
        f"{machine['name']}, {machine['device']}, {machine['threads']} threads, {machine['system']}, "
        f"torch {machine['torch']}"
    )


def show_reference(reference: dict[str, Any]) -> None:
    """Print what the reference costs."""
    result(
        f"reference: {reference['forwards']} forward passes of {reference['gflop_per_forward']:.1f} GFLOP "
        f"({reference['parameters'] / 1e6:.1f} M parameters, {reference['precision']}): "
        f"{reference['gflop']:.0f} GFLOP, {reference['seconds']:.3f} s, peak {shown_memory(reference)}"
    )


def show_preset(name: str, preset: dict[str, Any]) -> None:
    """Print what a preset costs, stage by stage."""
    title = (
        f"{name}: {preset['members']} members × {preset['steps']} steps, "
        f"{preset['parameters'] / 1e6:.1f} M parameters, {preset['precision']}"
        f"{', compiled' if preset['compiled'] else ''}"
    )
    table = Table(title=title)
    table.add_column("stage")
    for heading in ("GFLOP", "seconds"):
        table.add_column(heading, justify="right")
    for stage, took in preset["stages"].items():
        gflop = f"{took['gflop']:.2f}" if "gflop" in took else "–"
        table.add_row(stage, gflop, f"{took['seconds']:.4f}")
    table.add_section()
    table.add_row("without files", f"{preset['gflop']:.1f}", f"{preset['seconds']:.3f}")
    out.print(table)
    estimated = preset["gflop_estimated"]
    result(
        f"about {estimated['fft']:.2f} GFLOP more of Fourier transforms, {estimated['elementwise']:.2f} value by value"
    )
    made = f" (extrapolated from {preset['steps_made']} steps)" if preset["extrapolated"] else ""
    result(
        f"{preset['ratio']:.3f} × the seconds of the reference{made}; "
        f"{preset['images_per_second']:.3g} images/s with files; peak {shown_memory(preset)}"
    )


def shown_memory(of: dict[str, Any]) -> str:
    """Word the memory."""
    peak = of["peak_memory_gb"]
    return "memory not known" if peak is None else f"{peak:.2f} GB"


def train(
    presets: options.Presets = None,
    size: Annotated[
        int | None, typer.Option(min=16, help="Side of the images. [default: the preset's]", show_default=False)
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Images per step. [default: the preset's]", show_default=False)
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps that count, after two to warm up.")] = 10,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that read. [default: the preset's]", show_default=False)
    ] = None,
    device: options.Device = None,
    precision: Annotated[
        options.Precisions | None, typer.Option(help="[default: the preset's]", show_default=False)
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Measure how fast presets train, and how much of the time they wait for data.

    Trains on generated pictures for a few steps; nothing is kept.

    Example: `medsegdiff benchmark train v2-tiny --size 128 --batch 8 --steps 10`
    """
    from medsegdiff.benchmark.training import DEFAULTS, TrainingConditions, measure_training
    from medsegdiff.io.atomic import to_json

    conditions = TrainingConditions(size, batch, steps, workers, device, precision)
    found = measure_training(presets or list(DEFAULTS), conditions, say=info)
    if as_json:
        result(to_json(found))
        return
    show_machine(found["machine"])
    show_training(found["presets"])
    for note in found["notes"]:
        info(note)


def show_training(presets: dict[str, dict[str, Any]]) -> None:
    """Print what was measured, a column per preset."""
    table = Table("", *presets)
    rows: dict[str, Callable[[dict[str, Any]], str]] = {
        "image size": lambda p: f"{p['size']} px",
        "batch": lambda p: str(p["batch"]),
        "workers": lambda p: str(p["workers"]),
        "precision": lambda p: str(p["precision"]),
        "seconds of a step": lambda p: f"{p['step_seconds']:.3f}",
        "images per second": lambda p: f"{p['images_per_second']:.2f}",
        "waiting for data": lambda p: f"{p['waiting_share']:.1%}",
        "peak memory": shown_memory,
        "estimated": lambda p: f"{p['estimated_memory_gb']:.2f} GB",
    }
    for name, shown in rows.items():
        table.add_row(name, *(shown(preset) for preset in presets.values()))
    out.print(table)


command.add(app, "speed", speed)
command.add(app, "train", train)
