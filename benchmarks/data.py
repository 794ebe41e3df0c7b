"""How long training waits for data: pictures and slices of volumes, from the memory-mapped file and read anew.

python benchmarks/data.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from brats import link
from common import CPU, machine, parser, table, timed, write_page

from medsegdiff.benchmark.timing import stopwatch
from medsegdiff.benchmark.training import WARM, take_steps
from medsegdiff.cli import guard
from medsegdiff.config.load import load_preset
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.data.dataset import DataSource
from medsegdiff.data.loader import PreparedCases, TrainingStream
from medsegdiff.hardware import pick_precision
from medsegdiff.training.plan import plan

WAYS = (("memory-mapped", 32.0, 0), ("memory-mapped", 32.0, 2), ("read anew", 0.0, 0), ("read anew", 0.0, 2))
HEAD = ("data", "cases", "workers", "filled in (s)", "step (ms)", "of it waiting for data")


def main() -> None:
    """Measure each way to load, one after the other, and write the page."""
    given = parser(__doc__, data="../shared/data", runs="runs")
    given.add_argument("--steps", type=int, default=40)
    given.add_argument("--only", default="", help="Data whose names hold this; no page.")
    asked = given.parse_args()
    brats = link((asked.data / "brats2021").resolve(), asked.runs / "brats_data")
    sources = {
        "pictures, 1145 of 256×256 (isic2016)": asked.data / "isic2016",
        "slices of 4 × 240×240×155 (brats2021)": brats,
    }
    rows = table(HEAD, measured({name: path for name, path in sources.items() if asked.only in name}, asked.steps))
    if asked.only:
        return
    lines = [
        "# Waiting for data",
        "",
        f"`python benchmarks/data.py --steps {asked.steps}`: training steps of `v2-tiny` at 128 px, batch 16, with "
        f"augmentation, after {WARM} steps to warm up. {machine()}, {pick_precision('auto', CPU)}. With two workers, "
        "these share the two cores with training. There is one training volume, which stays in memory when its slices "
        "are read anew; of several, each slice costs the reading of its volume.",
        "",
    ]
    write_page("data", [*lines, *rows])


def measured(sources: dict[str, Path], steps: int) -> Iterator[tuple[str, ...]]:
    """Train on each data set in each way, fewer steps where every case is read anew."""
    for name, folder in sources.items():
        for way, room, workers in WAYS:
            made = steps if room else max(3, steps // 4)
            settings = [f"data.cache_gb={room}", f"train.num_workers={workers}", f"train.max_steps={made}"]
            planned = plan(folder, load_preset("v2-tiny", settings), device="cpu")
            filled, step, waiting = measure(planned.config, planned.source, fill=room > 0)
            yield name, way, str(workers), f"{filled:.1f}", f"{1000 * step:.0f}", f"{waiting:.1%}"


def measure(config: ResolvedConfig, source: DataSource, *, fill: bool) -> tuple[float, float, float]:
    """Train for some steps; give seconds to fill the file, per step, and the share of a step spent waiting."""
    info, watch, filled = source.info, stopwatch(CPU), [0.0]

    def stream(config: ResolvedConfig, stride: int) -> TrainingStream:
        cases, names = PreparedCases(source, config, stride=stride), info.items("train")
        if fill:
            filled[0] = timed(lambda: [cases[item] for item in names])
        inside = [item for item in names if item in info.foreground]
        return TrainingStream(cases, names, seed=0, augment=True, foreground=inside)

    take_steps(config, CPU, watch, stream_of=stream)
    steps, waits = (sum(watch.spans[stage][WARM:]) for stage in ("step", "wait"))
    return filled[0], steps / config.train.max_steps, waits / steps


if __name__ == "__main__":
    guard(main)
