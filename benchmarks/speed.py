"""What makes an ensemble and a training step fast, each with and without, in turn; memory; the table of presets.

python benchmarks/speed.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pairs import CPU, Given, give_back_memory, shown, table
from savings import drawn, network, savings
from training_step import training

from medsegdiff.benchmark.speed import Conditions, config_for, measure_speed
from medsegdiff.benchmark.timing import describe_machine, peak_memory
from medsegdiff.cli import guard
from medsegdiff.hardware import pick_precision

PAGE = Path(__file__).with_suffix(".md")
COMMAND = "python benchmarks/speed.py"
STAGES = ("condition", "tables", "steps", "fuse", "other")


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="Side of the images that are segmented.")
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3, help="Rounds of each pair.")
    parser.add_argument("--preset", default="v2-fast", help="What is measured with and without.")
    parser.add_argument("--large", default="v2", help="Whose memory and training are measured.")
    parser.add_argument("--small", default="v2-tiny", help="One more for the table of presets.")
    parser.add_argument("--page", type=Path, default=PAGE)
    options = vars(parser.parse_args())
    page, given = options.pop("page"), Given(**options)
    start = time.monotonic()
    lines = [*heading(given), *sampling(given), *training(given), *memory(given), *presets(given)]
    lines += ["", f"All of it took {(time.monotonic() - start) / 60:.0f} minutes.", ""]
    page.write_text("\n".join(lines), encoding="utf-8")


def heading(given: Given) -> list[str]:
    """Say on what machine, how, and with which command."""
    machine = describe_machine(CPU)
    precision = pick_precision("auto", CPU)
    return [
        "# Speed and memory",
        "",
        f"`{COMMAND}`. {machine['name']}, {machine['threads']} threads, {machine['system']}, torch "
        f"{machine['torch']}; {precision} unless said. Weights and pixels are random. Each pair is warmed up and runs "
        f"in turn in one process, with, without, with, …, {given.repeats} rounds: medians of seconds, and the median "
        "over the rounds of without / with.",
    ]


def sampling(given: Given) -> list[str]:
    """Measure what an ensemble costs with and without each saving."""
    config = config_for(given.preset, given.size)
    steps = config.sampling.steps
    head = ("saving", "instead of", "with, s", "without, s", "without / with", "largest difference")
    return [
        "",
        f"## An ensemble of {given.members}",
        "",
        f"`{given.preset}`, one image of {given.size} × {given.size} on the model grid, {steps} steps; files, resizing "
        "and fusion left out. *Largest difference*: between the probabilities of the members of both ways.",
        "",
        *table(head, savings(config, given)),
        "",
        "The rows of the condition, of keys and maps and of the filters say what one image costs; of a run of many "
        "images the filters are tabulated once for all. `v2-fast` has a small Diffusion Model beside a large "
        "Condition Model, so that what is done once per image weighs much. Ratios between 0.9 and 1.1 are within the "
        "noise of a few rounds: keys, maps, filters and inference mode are cheap either way here.",
        "",
        "Compiling (`segment --compile`) replaces the code between the calls of the library that convolves and "
        "multiplies matrices either way. CUDA graphs, which it turns on on GPUs, have not been measured.",
    ]


def memory(given: Given) -> list[str]:
    """Measure what memory ensembles take beyond the weights."""
    chunk = config_for(given.large, given.size).sampling.batch_size
    return [
        "",
        "## Memory of an ensemble",
        "",
        f"`{given.large}` at {given.size} × {given.size}, {chunk} masks at once (`sampling.batch_size`): peak of the "
        "resident memory beyond the weights. One step is made: later ones take no more.",
        "",
        *table(("members", "GB"), peaks(given, chunk)),
        "",
        "Beyond the chunk only the members themselves are kept.",
    ]


def peaks(given: Given, chunk: int) -> Iterator[tuple[str, ...]]:
    """Draw larger and larger ensembles."""
    config = config_for(given.large, given.size)
    once = config.model_copy(update={"sampling": config.sampling.model_copy(update={"steps": 1})})
    model = network(once)
    few = Given(given.size, 1, 1, given.preset, given.large, given.small)
    drawn(model, once, few, batch_size=chunk)  # the libraries wake up
    for members in (given.members, 25, 40):
        wanted = Given(given.size, members, 1, given.preset, given.large, given.small)
        give_back_memory()
        grown = peak_memory(partial(drawn, model, once, wanted, batch_size=chunk), CPU)
        yield str(members), shown(grown, 1e9)


def presets(given: Given) -> list[str]:
    """Measure presets from file to file, beside the forward passes of nnU-Net's default."""
    names = [given.preset, given.small, given.large]
    found = measure_speed(names, Conditions(size=given.size, members=given.members, repeats=given.repeats))
    reference = found["reference"]
    reference_gb = shown_gb(reference["peak_memory_gb"])
    head = ("preset", "GFLOP", "seconds", "ratio", "read, s", "write, s", "images/s", "peak, GB")
    rows = (
        (
            f"{name}, {one['members']} × {one['steps']}",
            f"{one['gflop']:.0f}",
            f"{one['seconds']:.2f}",
            f"{one['ratio']:.2f}",
            f"{one['stages']['read']['seconds']:.3f}",
            f"{one['stages']['write']['seconds']:.3f}",
            f"{one['images_per_second']:.2f}",
            shown_gb(one["peak_memory_gb"]),
        )
        for name, one in found["presets"].items()
    )
    return [
        "",
        "## Presets, from file to file",
        "",
        f"As `medsegdiff benchmark speed {' '.join(names)} --size {given.size} --members {given.members}` measures. "
        f"The reference: {reference['forwards']} forward passes of the UNet that nnU-Net would plan, "
        f"{reference['gflop']:.0f} GFLOP, {reference['seconds']:.2f} s ({reference['precision']}), {reference_gb} GB.",
        "",
        *table(head, rows),
        "",
        *table(("preset", *STAGES), (stages(name, one) for name, one in found["presets"].items())),
        "",
        *(f"- {note}" for note in found["notes"]),
        "- Here reading, computing and writing of one image follow one another, as in `segment`. Saving a picture in a "
        "thread while the next is computed was tried and left out: with both cores computing anyway, six images of "
        "256 px with `v2-fast` took 3.77 s with it and 3.90 s without (1.01, median of rounds), an image with "
        "`v2-fast-tiny` at 64 px 0.195 and 0.189 s. Reading ahead could hide no more than the column *read*.",
    ]


def stages(name: str, one: dict[str, Any]) -> tuple[str, ...]:
    """Give the seconds of each stage."""
    return (name, *(f"{one['stages'][stage]['seconds']:.3f}" for stage in STAGES))


def shown_gb(peak: float | None) -> str:
    """Word what may not be known."""
    return "?" if peak is None else f"{peak:.2f}"


if __name__ == "__main__":
    guard(main)
