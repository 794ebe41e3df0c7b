"""Memory of a training step: what is estimated beside what a process really takes, on this CPU.

python benchmarks/memory.py
"""

from __future__ import annotations

import gc
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

import torch
from torch.optim.swa_utils import AveragedModel

from medsegdiff.config.load import load_preset
from medsegdiff.config.run import Config
from medsegdiff.models.base import build_model
from medsegdiff.training.distillation import objective_of
from medsegdiff.training.memory import step_memory
from medsegdiff.training.optimisation import parameter_groups
from medsegdiff.types import Batch

PAGE = Path(__file__).with_suffix(".md")
RUNS = [("v2-tiny", batch) for batch in (4, 8, 16)] + [("v2-small", batch) for batch in (1, 3)]
SETTINGS = ("data.channels=3", "data.task=binary", "data.classes=[lesion]")
FIRST = ("model.condition_widths=[8, 8]", "model.diffusion_widths=[8, 8]", "model.anchor_levels=[0]")


def main() -> None:
    """Measure each case in a process of its own, and write the page."""
    rows = []
    for precision in ("fp32", "bf16"):
        for preset, batch in RUNS:
            config = load_preset(preset, SETTINGS)
            estimated = step_memory(config, precision=precision).of(batch) / 1e6  # type: ignore[arg-type]
            command = [sys.executable, __file__, preset, str(batch), precision]
            measured = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            rows.append(
                f"| {preset} | {config.data.image_size} | {precision} | {batch} | {measured:.0f} | {estimated:.0f} | "
                f"{estimated / measured - 1:+.0%} |"
            )
            print(rows[-1])
    lines = [
        "# Memory of a training step",
        "",
        "Command: `python benchmarks/memory.py`. Peak of the resident memory over two training steps (forward, "
        "backward, AdamW, average), less what the process held before the network was made, beside the estimate of "
        "`medsegdiff.training.memory`, by which `medsegdiff data plan` chooses the batch size.",
        "",
        f"Machine: {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch "
        f"{torch.__version__}.",
        "",
        "| preset | pixels | precision | batch | measured, MB | estimated, MB | difference |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
    ]
    PAGE.write_text("\n".join(lines), encoding="utf-8")


def measure(preset: str, batch_size: int, precision: str) -> float:
    """Make two steps and give the growth of the peak in MB."""
    take_steps(load_preset(preset, [*SETTINGS, *FIRST, "data.image_size=32"]), 1, precision)  # the libraries wake up
    gc.collect()
    before = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    take_steps(load_preset(preset, SETTINGS), batch_size, precision)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / 1e6


def take_steps(config: Config, batch_size: int, precision: str) -> None:
    """Train on noise, as the trainer does it."""
    model, size = build_model(config), config.data.image_size
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.01), lr=1e-4, fused=True)
    average, objective = AveragedModel(model), objective_of(config, torch.device("cpu"))
    for _ in range(2):
        image, mask = torch.randn(batch_size, 3, size, size), torch.rand(batch_size, 1, size, size).round()
        batch = Batch(image, mask, tuple(range(batch_size)))
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = objective(model, batch).total
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(model)
        optimizer.zero_grad()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(measure(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
    else:
        main()
