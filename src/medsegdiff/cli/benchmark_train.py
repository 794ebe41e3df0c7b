"""``medsegdiff benchmark train``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from medsegdiff.cli.benchmark_speed import show_machine, shown_memory
from medsegdiff.cli.console import give, out, say
from medsegdiff.config.train import Precision


def train(
    presets: Annotated[
        list[str] | None, typer.Argument(help="Names of presets, or YAML files. [default: v2-tiny]")
    ] = None,
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
    device: Annotated[str | None, typer.Option(help="Where: cpu, cuda, mps. [default: the best]")] = None,
    precision: Annotated[Precision | None, typer.Option(help="[default: the preset's]", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Measure how fast presets train, and how much of the time they wait for data.

    Trains on generated pictures for a few steps; nothing is kept.

    Example: `medsegdiff benchmark train v2-tiny --size 128 --batch 8 --steps 10`
    """
    from medsegdiff.benchmark.training import DEFAULTS, TrainingConditions, measure_training
    from medsegdiff.io.atomic import to_json

    conditions = TrainingConditions(size, batch, steps, workers, device, precision)
    found = measure_training(presets or list(DEFAULTS), conditions, say=say)
    if as_json:
        give(to_json(found))
        return
    show_machine(found["machine"])
    show_training(found["presets"])
    for note in found["notes"]:
        say(note)


def show_training(presets: dict[str, dict[str, Any]]) -> None:
    """Print what was measured, a column per preset."""
    table = Table("", *map(escape, presets))
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
