"""How long training waits for data: pictures and slices of volumes, from the memory-mapped file and read anew.

python benchmarks/data.py
"""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path

import torch
from brats import link

from medsegdiff.cli import guard
from medsegdiff.config.load import load_preset
from medsegdiff.data.dataset import DataSource
from medsegdiff.data.loader import PreparedCases, TrainingStream, as_batch, training_loader
from medsegdiff.data.open import open_source
from medsegdiff.hardware import autocast, pick_precision
from medsegdiff.models.base import build_model
from medsegdiff.training.distillation import objective_of
from medsegdiff.training.optimisation import parameter_groups

PAGE = Path(__file__).with_name("data.md")
WARM = 5


def main() -> None:
    """Measure each way to load, one after the other, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="Where links to the volumes go.")
    parser.add_argument("--steps", type=int, default=40)
    given = parser.parse_args()
    sources = {
        "pictures, 1145 of 256×256 (isic2016)": given.data / "isic2016",
        "slices of 4 × 240×240×155 (brats2021)": link((given.data / "brats2021").resolve(), given.runs / "brats_data"),
    }
    ways = (("memory-mapped", 32.0, 0), ("memory-mapped", 32.0, 2), ("read anew", 0.0, 0), ("read anew", 0.0, 2))
    lines = [
        "# Waiting for data",
        "",
        f"`python benchmarks/data.py --steps {given.steps}`: training steps of `v2-tiny` at 128 px, batch 16, with "
        f"augmentation, after {WARM} steps to warm up. {platform.machine()}, {torch.get_num_threads()} threads, torch "
        f"{torch.__version__}, {pick_precision('auto', torch.device('cpu'))}. With two workers, these share the two "
        "cores with training. There is one training volume, which stays in memory when its slices are read anew; of "
        "several, each slice costs the reading of its volume.",
        "",
        "| data | cases | workers | filled in (s) | step (ms) | of it waiting for data |",
        "|---|---|---|---|---|---|",
    ]
    for name, folder in sources.items():
        source = open_source(folder, load_preset("v2-tiny").data)
        for way, room, workers in ways:
            steps = given.steps if room else max(WARM + 3, given.steps // 4)
            filled, step, waited = measure(source, room, workers, steps)
            lines.append(f"| {name} | {way} | {workers} | {filled:.1f} | {1000 * step:.0f} | {waited / step:.1%} |")
            print(lines[-1], flush=True)
    PAGE.write_text("\n".join([*lines, ""]), encoding="utf-8")


def measure(source: DataSource, room: float, workers: int, steps: int) -> tuple[float, float, float]:
    """Train for some steps; give seconds to fill the file, per step, and per step waiting for data."""
    info = source.info
    overrides = [f"data.cache_gb={room}", f"train.num_workers={workers}", f"data.channels={info.channels}"]
    overrides += [f"data.task={info.task}", f"data.classes=[{', '.join(info.classes)}]"]
    config = load_preset("v2-tiny", overrides)
    model = build_model(config)
    cases = PreparedCases(source, config.data, channels=info.channels, stride=model.stride)
    names, start = info.items("train"), time.perf_counter()
    if room:
        for item in names:
            cases[item]
    filled = time.perf_counter() - start
    inside = [item for item in names if item in info.foreground]
    stream = TrainingStream(cases, names, seed=0, augment=True, foreground=inside)
    batches = iter(training_loader(stream, config.train, start=0, num_batches=WARM + steps))
    optimizer = torch.optim.AdamW(parameter_groups(model, config.train.weight_decay), lr=1e-3)
    objective = objective_of(config, torch.device("cpu"))
    waited = begun = 0.0
    for number in range(WARM + steps):
        if number == WARM:
            waited, begun = 0.0, time.perf_counter()
        asked = time.perf_counter()
        batch = as_batch(next(batches))
        waited += time.perf_counter() - asked
        with autocast("auto", torch.device("cpu")):
            loss = objective(model, batch).total
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return filled, (time.perf_counter() - begun) / steps, waited / steps


if __name__ == "__main__":
    guard(main)
