"""What makes an ensemble and a training step fast, each with and without, in turn; memory; the table of presets.

python benchmarks/speed.py
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from medsegdiff.benchmark.contestants import Conditions, config_for
from medsegdiff.benchmark.machine import describe_machine
from medsegdiff.benchmark.speed import measure_speed
from medsegdiff.benchmark.timing import in_turn, peak_memory
from medsegdiff.benchmark.training import TrainingConditions, make_step, phantom_stream, training_config
from medsegdiff.cli import guard
from medsegdiff.config import Config, Precision
from medsegdiff.data.loader import as_batch, training_loader
from medsegdiff.hardware import pick_precision, place
from medsegdiff.inference.compiling import compile_steps, is_compiled
from medsegdiff.inference.ensemble import EnsembleSampler
from medsegdiff.models.base import DiffusionModel, build_model
from medsegdiff.nn.nbp_filter import NBPFilter, distinct_radii
from medsegdiff.training.optimisation import moving_average, parameter_groups
from medsegdiff.types import Condition

PAGE = Path(__file__).with_suffix(".md")
CPU = torch.device("cpu")
COMMAND = "python benchmarks/speed.py"
RELEASE = {64: 2.06, 128: 4.27}
"""Seconds of a training step of the authors' release, batch 2, on two cores of this kind in fp32; image size → s."""

Run = Callable[[], Any]


@dataclass(frozen=True)
class Given:
    """How large and how often; the defaults take some minutes on two cores."""

    size: int
    members: int
    repeats: int
    preset: str
    large: str
    compiled: str


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="Side of the images that are segmented.")
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3, help="Rounds of each pair.")
    parser.add_argument("--preset", default="v2-fast", help="What is measured with and without.")
    parser.add_argument("--large", default="v2", help="Whose memory, and whose training is measured.")
    parser.add_argument("--compiled", default="v2-tiny", help="What is compiled.")
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


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Print rows as they come, and give the table in Markdown."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        lines.append(f"| {' | '.join(row)} |")
        print(lines[-1], flush=True)
    return lines


# Drawing an ensemble


def sampling(given: Given) -> list[str]:
    """Measure what an ensemble costs with and without each saving."""
    config = config_for(given.preset, given.size)
    steps = config.sampling.num_steps
    head = ("saving", "instead of", "with, s", "without, s", "without / with", "largest difference")
    return [
        "",
        f"## An ensemble of {given.members}",
        "",
        f"`{given.preset}`, one image of {given.size} × {given.size} on the model grid, {steps} steps; files, resizing "
        "and fusion left out. *Largest difference*: between the probabilities of the members of both ways.",
        "",
        *table(head, pairs(config, given)),
        "",
        "The rows of the condition, of keys and maps and of the filters say what one image costs; of a run of many "
        "images the filters are tabulated once for all. `v2-fast` has a small Diffusion Model beside a large "
        "Condition Model, so that what is done once per image weighs much.",
        "",
        "Compiling (`segment --compile`) hardly pays on a CPU, where convolutions and matrix products come from the "
        "same library either way: ten members of `v2-fast` at 256 × 256 took 0.31 s a step plain and 0.35 s compiled "
        "on one busy core in bf16, after minutes of compiling. CUDA graphs, which it turns on there, have not been "
        "measured.",
    ]


def pairs(config: Config, given: Given) -> Iterator[tuple[str, ...]]:
    """Time each saving."""
    model = network(config)
    draw = partial(drawn, model, config, given)
    with_all = partial(draw)
    yield compared("condition once per image", "at each step", with_all, within(each_step(model), draw), given)
    yield compared("keys and values once", "at each step", with_all, within(unprepared(model), draw), given)
    if hasattr(model, "diffusion_model") and hasattr(model.diffusion_model, "gates"):
        yield compared("U-SA maps once", "at each step", with_all, within(gated_anew(model), draw), given)
    yield compared("NBP-Filters once", "at each step", with_all, within(untabulated(model), draw), given)
    yield compared("members in one batch", "one by one", with_all, partial(draw, batch_size=1), given)
    plain = network(config, layout=torch.contiguous_format)
    yield compared("channels last", "channels first", with_all, partial(drawn, plain, config, given), given)
    whole = partial(draw, precision="fp32")
    yield compared("bf16", "fp32", partial(draw, precision="bf16"), whole, given)
    yield compared("inference mode", "no_grad", with_all, within(lambda: without_inference_mode(), draw), given)
    small = config_for(given.compiled, given.size)
    yield compiled_pair(small, given)


def network(config: Config, layout: torch.memory_format = torch.channels_last) -> DiffusionModel:
    """Build a network whose every part has an effect, as `Segmenter` places it."""
    torch.manual_seed(0)
    model = build_model(config).eval()
    for parameter in model.parameters():
        if not parameter.any():  # projections that start at zero
            nn.init.normal_(parameter, std=0.02)
    if layout is torch.channels_last:
        place(model, CPU)
    return model


def drawn(
    model: DiffusionModel, config: Config, given: Given, *, batch_size: int | None = None, precision: Precision = "auto"
) -> Tensor:
    """Draw the ensemble of an image, as `Segmenter` does."""
    wanted = {"num_samples": given.members, "batch_size": batch_size or max(given.members, config.sampling.batch_size)}
    sampler = EnsembleSampler(model, config, config.sampling.model_copy(update=wanted), precision=precision)
    side = -(-given.size // model.stride) * model.stride
    image = torch.rand(1, config.image_channels, side, side, generator=torch.Generator().manual_seed(0))
    return sampler.draw(image, ["image"], seed=0).probability


def compared(saving: str, instead: str, on: Run, off: Run, given: Given) -> tuple[str, ...]:
    """Time two ways in turn, and see how far their results lie apart."""
    difference = float((on() - off()).abs().max())  # warms both up
    return (saving, instead, *in_rounds(on, off, given.repeats), f"{difference:.0e}")


def in_rounds(on: Run, off: Run, repeats: int) -> tuple[str, str, str]:
    """Give the medians of both, and that of their ratio."""
    seconds = in_turn({"on": partial(timed, on), "off": partial(timed, off)}, repeats)
    ratio = median(b / a for a, b in zip(seconds["on"], seconds["off"], strict=True))
    return f"{median(seconds['on']):.3g}", f"{median(seconds['off']):.3g}", f"{ratio:.2f}"


def timed(run: Run) -> float:
    """Give the seconds that something takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def within(context: Callable[[], AbstractContextManager[None]], run: Run) -> Run:
    """Make something run within a context."""

    def inside() -> Any:
        with context():
            return run()

    return inside


@contextmanager
def replaced(owner: Any, **methods: Any) -> Iterator[None]:
    """Give an object other methods for a while."""
    for name, method in methods.items():
        setattr(owner, name, method)
    try:
        yield
    finally:
        for name in methods:
            delattr(owner, name)


def each_step(model: DiffusionModel) -> Callable[[], AbstractContextManager[None]]:
    """Look at the image anew at each step, as is done where the condition is part of the denoiser."""
    look, denoise, seen = model.condition, model.denoise, list[Tensor]()

    def condition(image: Tensor) -> Condition:
        seen[:] = [image]
        return look(image)

    def step(x_t: Tensor, t: Tensor, own: Condition, *, filters: Any = None) -> Tensor:
        anew = model.prepare(look(seen[0])).shared(0, len(x_t))
        return denoise(x_t, t, anew, filters=filters)

    return lambda: replaced(model, condition=condition, denoise=step)


def unprepared(model: DiffusionModel) -> Callable[[], AbstractContextManager[None]]:
    """Make tokens, keys and values of c⁰ at each step, for each member."""
    return lambda: replaced(model, prepare=lambda condition: condition)


def gated_anew(model: DiffusionModel) -> Callable[[], AbstractContextManager[None]]:
    """Compute the U-SA maps at each step, once for all members."""
    inner: Any = model.diffusion_model
    gates, denoise, seen = inner.gates, model.denoise, list[Any]()

    def kept(features: Any) -> tuple[Tensor, ...]:
        seen[:] = [features]
        found: tuple[Tensor, ...] = gates(features)
        return found

    def step(x_t: Tensor, t: Tensor, own: Condition, *, filters: Any = None) -> Tensor:
        gates(seen[0])
        return denoise(x_t, t, own, filters=filters)

    @contextmanager
    def both() -> Iterator[None]:
        with replaced(inner, gates=kept), replaced(model, denoise=step):
            yield

    return both


def untabulated(model: DiffusionModel) -> Callable[[], AbstractContextManager[None]]:
    """Evaluate the NBP-Filters at each step; `EnsembleSampler` tabulates them beforehand in either way."""
    denoise = model.denoise

    def step(x_t: Tensor, t: Tensor, own: Condition, *, filters: Any = None) -> Tensor:
        return denoise(x_t, t, own)

    return lambda: replaced(model, denoise=step, filters=lambda t, size: [])


@contextmanager
def without_inference_mode() -> Iterator[None]:
    """Only switch the recording of gradients off."""
    before = {name: vars(EnsembleSampler)[name] for name in ("_looked_at", "_drawn")}
    for name, method in before.items():
        setattr(EnsembleSampler, name, torch.no_grad()(method.__wrapped__))
    try:
        yield
    finally:
        for name, method in before.items():
            setattr(EnsembleSampler, name, method)


def compiled_pair(config: Config, given: Given) -> tuple[str, ...]:
    """Time an ensemble with compiled steps beside plain ones; compiling itself is told, not counted."""
    plain, fast = network(config), network(config)
    compile_steps(fast, CPU)
    on, off = (partial(drawn, model, config, given) for model in (fast, plain))
    first = timed(on)
    row = compared(f"compiled steps (`{given.compiled}`, after {first:.0f} s)", "plain", on, off, given)
    return row if is_compiled(fast) else (f"{row[0]}: there is no compiler", *row[1:])


# Training


def training(given: Given) -> list[str]:
    """Measure what a training step costs."""
    return [
        "",
        "## A training step",
        "",
        f"`{given.large}`, batch 2: forward and backward pass, clipping, AdamW, moving average. *Authors' release*: "
        "their code at 28b343f on two cores of the same kind, fp32.",
        "",
        *table(("side", "precision", "seconds", "authors' release, s", "ratio"), steps(given)),
        "",
        *table(("saving", "instead of", "with, s", "without, s", "without / with"), updates(given)),
        "",
        "Gradient checkpointing (`train.gradient_checkpointing`): the backward pass computes residual blocks anew. "
        "*Estimated*: kept per image for the backward pass at the preset's own size, as `data plan` reckons.",
        "",
        *table(
            ("preset", "side", "batch", "s, plain", "s, checkpointing", "peak MB, plain", "peak MB, checkpointing"),
            checkpointing(given),
        ),
    ]


def stepper(preset: str, size: int, batch: int, *, precision: Precision, checkpoints: bool = False) -> Run:
    """Make a training step ready."""
    conditions = TrainingConditions(size=size, batch=batch, steps=1, workers=0, precision=precision)
    config = training_config(preset, conditions)
    train = config.train.model_copy(update={"gradient_checkpointing": checkpoints})
    config = config.model_copy(update={"train": train})
    loaded = next(iter(training_loader(phantom_stream(config), config.train, start=0, num_batches=1)))
    return partial(make_step(config, CPU), as_batch(loaded))


def steps(given: Given) -> Iterator[tuple[str, ...]]:
    """Time whole steps in both precisions."""
    for size, theirs in RELEASE.items():
        precisions: tuple[Precision, ...] = ("fp32", "bf16")
        runs = {precision: stepper(given.large, size, 2, precision=precision) for precision in precisions}
        for run in runs.values():
            run()  # warm
        found = in_turn({name: partial(timed, run) for name, run in runs.items()}, given.repeats)
        for precision, seconds in found.items():
            ours = median(seconds)
            yield f"{size}", precision, f"{ours:.2f}", f"{theirs:.2f}", f"{ours / theirs:.2f}"


def updates(given: Given) -> Iterator[tuple[str, ...]]:
    """Time what a step does to the weights, and a filter of the SS-Former in training."""
    torch.manual_seed(0)
    model = build_model(config_for(given.large, 64))
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizers = [torch.optim.AdamW(parameter_groups(model, 0.01), lr=1e-9, fused=fused) for fused in (True, False)]
    on, off = (optimizer.step for optimizer in optimizers)
    on(), off()
    yield "AdamW, fused", "by operation", *in_rounds(on, off, given.repeats)
    average, plain = (
        AveragedModel(model, multi_avg_fn=moving_average(0.999, lambda: 9)),
        AveragedModel(model, avg_fn=lambda mean, value, _: 0.999 * mean + 0.001 * value),
    )
    runs = [partial(one.update_parameters, model) for one in (average, plain)]
    for run in runs * 2:
        run()
    yield "moving average, all weights at once", "one after the other", *in_rounds(*runs, given.repeats)
    nbp, embedding = NBPFilter(time_dim=256), torch.randn(2, 256)
    places = distinct_radii(16, 16, CPU)
    every = places[0][places[1].reshape(-1)]
    grid = torch.meshgrid(every, every, indexing="ij")
    on, off = (lambda: nbp(16, 16, embedding)), (lambda: nbp.at(*grid, embedding))
    on(), off()
    yield "NBP-Filter at distinct radii, 16 × 16 tokens", "at every pair", *in_rounds(on, off, given.repeats)


def checkpointing(given: Given) -> Iterator[tuple[str, ...]]:
    """Time steps with and without gradient checkpointing, and measure their memory."""
    for preset, size, batch in ((given.large, 128, 2), (given.preset, given.size, 4)):
        runs = [stepper(preset, size, batch, precision="auto", checkpoints=flag) for flag in (False, True)]
        for run in runs:
            run()  # moments and average get their memory
        grown = []
        for run in runs:
            give_back_memory()
            grown.append(peak_memory(run, CPU))
        plain, saving, _ = in_rounds(*runs, given.repeats)
        yield preset, str(size), str(batch), plain, saving, *(shown(peak, 1e6) for peak in grown)


def give_back_memory() -> None:
    """Let the C library give freed memory back, so that the next peak is measured from what is really held."""
    gc.collect()
    with suppress(OSError, AttributeError):  # other systems
        ctypes.CDLL(None).malloc_trim(0)


def shown(peak: float | None, unit: float) -> str:
    """Word a number of bytes."""
    return "?" if peak is None else f"{peak / unit:.2f}" if unit == 1e9 else f"{peak / unit:.0f}"


# Memory


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
    once = config.model_copy(update={"sampling": config.sampling.model_copy(update={"num_steps": 1})})
    model = network(once)
    few = Given(given.size, 1, 1, given.preset, given.large, given.compiled)
    drawn(model, once, few, batch_size=chunk)  # the libraries wake up
    for members in (given.members, 25, 40):
        wanted = Given(given.size, members, 1, given.preset, given.large, given.compiled)
        give_back_memory()
        grown = peak_memory(partial(drawn, model, once, wanted, batch_size=chunk), CPU)
        yield str(members), shown(grown, 1e9)


# Presets


def presets(given: Given) -> list[str]:
    """Measure presets from file to file, beside the forward passes of nnU-Net's default."""
    names = [given.preset, given.compiled]
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
        "- Reading, computing and writing follow one another: overlapping them could hide no more than the columns "
        "*read* and *write*.",
    ]


STAGES = ("condition", "tables", "steps", "fuse", "other")


def stages(name: str, one: dict[str, Any]) -> tuple[str, ...]:
    """Give the seconds of each stage."""
    return (name, *(f"{one['stages'][stage]['seconds']:.3f}" for stage in STAGES))


def shown_gb(peak: float | None) -> str:
    """Word what may not be known."""
    return "?" if peak is None else f"{peak:.2f}"


if __name__ == "__main__":
    guard(main)
