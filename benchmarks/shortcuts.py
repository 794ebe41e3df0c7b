"""One step instead of many: `train --distill` beside plain sampling with fewer and fewer steps.

python benchmarks/shortcuts.py --cases 24
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import parser, table, write_page
from steps import measure, references

from medsegdiff.cli import guard
from medsegdiff.inference.segmenter import Segmenter

SHOWN = {"dice": "Dice", "agreement": "agreement", "ece_near": "ECE near", "ged": "GED² (10)"}
PLAIN = (("logsnr", 100), ("regions", 5), ("trailing", 4), ("trailing", 2), ("trailing", 1))
"""Spacings and steps."""
WORDS = """All with DPM-Solver++(2M), 10 members, fused by STAPLE, `v2-fast-tiny` at 64 px. *Distilled*: one round of
progressive distillation (Salimans & Ho, 2022), from 2 steps to 1: the network learns to say at once what two steps
(trailing) of its teacher come to from the same noise, in a quarter of the steps that the teacher was trained for.

How to read it: one plain step is the mean of all masks, and its members hardly differ. Distilled, one step comes out
as a hundred do, on both data sets. One training run each and few images: small differences mean nothing. A start at the
noised anchor and a network that sees its own last prediction (self-conditioning) were tried too, and are not offered:
the first puts the errors of the anchor into every member, the second gained Dice and lost spread.
"""


def main() -> None:
    """Measure what was not measured, and write the page."""
    asked = parser(__doc__, data="../shared/data/isic2016", runs="runs")  # where benchmarks/fast.py left its runs
    asked.add_argument("--cases", type=int, default=24)
    given = asked.parse_args()
    page = [
        "# Shortcuts to fewer steps",
        "",
        f"Command: `python benchmarks/shortcuts.py --cases {given.cases}` after `python benchmarks/fast.py`; "
        f"{given.cases} test images.",
        "",
        WORDS,
    ]
    for name, data in (("phantom", given.runs / "fast_phantom"), ("isic", given.data)):
        page += study(name, data, given.runs, given.cases)
    write_page("shortcuts", page)


def study(name: str, data: Path, runs: Path, cases: int) -> list[str]:
    """Measure each way once for all time, and write its part of the page."""
    kept, plain = runs / f"shortcuts_{name}_{cases}.json", runs / f"fast_{name}_fast"
    found: dict[str, dict[str, float]] = json.loads(kept.read_text()) if kept.exists() else {}
    ways: dict[str, tuple[Path, dict[str, Any]]] = {
        f"plain, {steps} × {spacing}": (plain, {"spacing": spacing, "steps": steps}) for spacing, steps in PLAIN
    }
    ways["distilled, 1 (`train --distill`)"] = (distilled(plain, data, runs / f"shortcuts_{name}_distilled"), {})
    images = references(data, plain, cases)
    for title, (run, options) in ways.items():
        if title not in found:
            found[title] = measure(Segmenter.from_pretrained(run), images, **options)
            kept.write_text(json.dumps(found))
    shown = {key: head for key, head in SHOWN.items() if key in next(iter(found.values()))}
    rows = ((title, *(f"{found[title][key]:.3f}" for key in shown)) for title in ways)
    return [f"## {name}", "", *table(("", *shown.values()), rows), ""]


def distilled(plain: Path, data: Path, run: Path) -> Path:
    """Distil the plain network into one step, as ``medsegdiff train --start RUN --distill`` does."""
    if not (run / "model.safetensors").exists():
        options = ["train", str(data), "--out", str(run), "--start", str(plain), "--distill"]
        subprocess.run([sys.executable, "-m", "medsegdiff", *options], check=True)
    return run


if __name__ == "__main__":
    guard(main)
