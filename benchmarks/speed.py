"""What presets and a training step cost here: ensembles from file to file, compiled steps, training in both precisions.

python benchmarks/speed.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from common import CPU, parser, table, write_page

from medsegdiff.benchmark.speed import Conditions, measure_speed
from medsegdiff.benchmark.timing import describe_machine
from medsegdiff.benchmark.training import TrainingConditions, measure_training
from medsegdiff.cli import guard
from medsegdiff.hardware import pick_precision

STAGES = ("condition", "tables", "steps", "fuse", "other")
RELEASE = {64: 2.06, 128: 4.27}
"""Seconds of a training step of the authors' release, batch 2, on two cores of this kind in fp32; image size → s."""


def main() -> None:
    """Measure, and write the page."""
    given = parser(__doc__)
    given.add_argument("--size", type=int, default=256, help="Side of the images that are segmented.")
    given.add_argument("--members", type=int, default=10)
    given.add_argument("--repeats", type=int, default=3, help="Rounds in which presets and reference take turns.")
    given.add_argument("--presets", nargs="+", default=["v2-fast", "v2-tiny", "v2"], help="The first is compiled too.")
    given.add_argument("--train", default="v2", help="The preset whose training is measured.")
    given.add_argument("--steps", type=int, default=10, help="Training steps that count.")
    given.add_argument("--page", default="speed", help="Name of the page.")
    asked = given.parse_args()
    start, machine = time.monotonic(), describe_machine(CPU)
    lines = [
        "# Speed",
        "",
        f"`python benchmarks/speed.py`. {machine['name']}, {machine['threads']} threads, {machine['system']}, torch "
        f"{machine['torch']}; {pick_precision('auto', CPU)} unless said. Weights and pixels are random.",
        *presets(asked),
        *training(asked),
        "",
        f"All of it took {(time.monotonic() - start) / 60:.0f} minutes.",
    ]
    write_page(asked.page, lines)


def presets(asked: argparse.Namespace) -> list[str]:
    """Measure presets from file to file, beside the forward passes of nnU-Net's default; the first compiled, too."""
    conditions = Conditions(size=asked.size, members=asked.members, repeats=asked.repeats, device="cpu")
    found = measure_speed(asked.presets, conditions, say=print)
    first = measure_speed(asked.presets[:1], replace(conditions, compiled=True), say=print)["presets"]
    shown = found["presets"] | {f"{name}, compiled": one for name, one in first.items()}
    reference = found["reference"]
    head = ("preset", "GFLOP", "seconds", "ratio", "read, s", "write, s", "images/s", "peak, GB")
    return [
        "",
        "## Presets, from file to file",
        "",
        f"As `medsegdiff benchmark speed {' '.join(asked.presets)} --size {asked.size} --members {asked.members}` "
        f"measures. The reference: {reference['forwards']} forward passes of the UNet that nnU-Net would plan, "
        f"{reference['gflop']:.0f} GFLOP, {reference['seconds']:.2f} s ({reference['precision']}), "
        f"{gigabytes(reference)} GB.",
        "",
        *table(head, (whole(name, one) for name, one in shown.items())),
        "",
        *table(("preset", *STAGES), (stages(name, one) for name, one in shown.items())),
        "",
        *(f"- {note}" for note in found["notes"]),
    ]


def whole(name: str, one: dict[str, Any]) -> tuple[str, ...]:
    """Write what an image costs with a preset."""
    read, write = (f"{one['stages'][stage]['seconds']:.3f}" for stage in ("read", "write"))
    costs = (f"{one['gflop']:.0f}", f"{one['seconds']:.2f}", f"{one['ratio']:.2f}", read, write)
    return f"{name}, {one['members']} × {one['steps']}", *costs, f"{one['images_per_second']:.2f}", gigabytes(one)


def stages(name: str, one: dict[str, Any]) -> tuple[str, ...]:
    """Write the seconds of each stage."""
    return name, *(f"{one['stages'][stage]['seconds']:.3f}" for stage in STAGES)


def gigabytes(of: dict[str, Any]) -> str:
    """Word the memory."""
    peak = of["peak_memory_gb"]
    return "?" if peak is None else f"{peak:.2f}"


def training(asked: argparse.Namespace) -> list[str]:
    """Measure what a training step costs in both precisions, beside the authors' release."""
    return [
        "",
        "## A training step",
        "",
        f"`{asked.train}`, batch 2, as `medsegdiff benchmark train` measures: loading, forward and backward pass, "
        "clipping, AdamW, moving average. *Authors' release*: their code at 28b343f on two cores of the same kind, "
        "fp32.",
        "",
        *table(("side", "precision", "seconds", "authors' release, s", "ratio"), steps(asked)),
    ]


def steps(asked: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """Time the trainer's steps."""
    for size, theirs in RELEASE.items():
        for precision in ("fp32", "bf16"):
            conditions = TrainingConditions(size, 2, asked.steps, 0, "cpu", precision)
            ours = measure_training([asked.train], conditions)["presets"][asked.train]["step_seconds"]
            yield f"{size}", precision, f"{ours:.2f}", f"{theirs:.2f}", f"{ours / theirs:.2f}"


if __name__ == "__main__":
    guard(main)
