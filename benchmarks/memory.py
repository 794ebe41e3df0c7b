"""Memory of a training step: what is estimated beside what a process really takes, on this CPU.

python benchmarks/memory.py
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

from common import machine, parser, table, write_page

from medsegdiff.cli import guard

RUNS = [("v2-tiny", batch) for batch in (4, 8, 16)] + [("v2-small", batch) for batch in (1, 3)]
HEAD = ("preset", "pixels", "precision", "batch", "measured, MB", "estimated, MB", "difference")


def main() -> None:
    """Measure each case in a process of its own, and write the page."""
    given = parser(__doc__)
    given.add_argument("--only", default="", help="Presets whose names hold this; no page.")
    asked = given.parse_args()
    rows = table(HEAD, measured(asked.only))
    if asked.only:
        return
    lines = [
        "# Memory of a training step",
        "",
        "Command: `python benchmarks/memory.py`, which runs `medsegdiff benchmark train PRESET --batch N --precision P "
        "--steps 1 --workers 0` for each row: peak of the resident memory over three training steps (forward, "
        "backward, AdamW, average), less what the process held before the network was made, beside the estimate of "
        "`medsegdiff.training.memory`, by which `medsegdiff data plan` chooses the batch size.",
        "",
        f"Machine: {machine()}.",
        "",
    ]
    write_page("memory", [*lines, *rows])


def measured(only: str) -> Iterator[tuple[str, ...]]:
    """Let the command train for a moment, case by case."""
    for precision in ("fp32", "bf16"):
        for preset, batch in RUNS:
            if only not in preset:
                continue
            command = [sys.executable, "-m", "medsegdiff", "benchmark", "train", preset, "--batch", str(batch)]
            command += ["--precision", precision, "--steps", "1", "--workers", "0", "--device", "cpu", "--json"]
            told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            found = told["presets"][preset]
            took, guess = (1000 * found[key] for key in ("peak_memory_gb", "estimated_memory_gb"))
            numbers = (f"{took:.0f}", f"{guess:.0f}", f"{guess / took - 1:+.0%}")
            yield preset, str(found["size"]), precision, str(batch), *numbers


if __name__ == "__main__":
    guard(main)
