"""One step instead of twenty: a network that was distilled, and trained on its score, beside its teacher at 128 px.

python benchmarks/one_step.py     (after python benchmarks/earn.py --data drishti_gs_roi --systems v2)
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, parser, table, write_page

from medsegdiff.cli import guard
from medsegdiff.cli.console import track
from medsegdiff.evaluation import Evaluation, evaluate
from medsegdiff.inference.files import segment_files
from medsegdiff.inference.inputs import find_inputs
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.metrics.paired import bootstrap_interval
from medsegdiff.training.run import Run

TEACHER = "drishti_gs_roi_v2_5min_0"
REFERENCE = "20 steps"
SHOWN = {"ged": "GED²", "hm_iou": "HM-IoU", "dice": "Dice, fused"}
WORDS = """Optic disc and cup (Drishti-GS) at 128 px, `v2-fast-tiny` trained for five minutes of one processor; 10
members, decided by expected Dice. What at least 1, 2, 3 and 4 of the four experts drew stands for them. *Distilled*:
`train --distill`, for {distilled} steps after the teacher's {teacher}. *Scored*: that, and `train --score` for
{scored} more. Behind each number the 95 % interval of its difference from {reference}, over the same {cases} test
images; the last column is the ratio of GED² to it. One training of each: another seed may differ by more."""


def main() -> None:
    """Train what is missing, segment with all, and write the page."""
    asked = parser(__doc__, data="../shared/data/drishti_gs_roi", runs="runs/earn")
    asked.add_argument("--distill-steps", type=int, help="[default: a quarter of the teacher's]")
    asked.add_argument("--score-steps", type=int, default=60)
    given = asked.parse_args()
    teacher = given.runs / TEACHER
    distilled = trained(
        given, "distilled", start=teacher, flag="--distill", steps=given.distill_steps or round(last_step(teacher) / 4)
    )
    scored = trained(given, "scored", start=distilled, flag="--score", steps=given.score_steps)
    ways: dict[str, tuple[Path, dict[str, Any]]] = {
        REFERENCE: (teacher, {"steps": 20}),
        "5 steps, as the preset": (teacher, {}),
        "1 step, not taught": (teacher, {"steps": 1}),
        "1 step, distilled": (distilled, {}),
        "1 step, scored": (scored, {}),
    }
    found = {name: measured(given, name, run, options) for name, (run, options) in ways.items()}
    steps = {name: last_step(run) for name, run in (("teacher", teacher), ("distilled", distilled), ("scored", scored))}
    write_page("one_step", page(found, steps))


def trained(given: Any, name: str, *, start: Path, flag: str, steps: int) -> Path:
    """Go on with a run as ``medsegdiff train --start RUN`` does."""
    run: Path = given.runs / f"{TEACHER}_{name}"
    if not (run / "model.safetensors").exists():
        settings = ["--set", f"train.max_steps={steps}", "--set", "train.max_minutes=null"]
        options = ["train", str(given.data), "--out", str(run), "--start", str(start), flag, *settings]
        subprocess.run([sys.executable, "-m", "medsegdiff", *options], check=True)
    return run


def measured(given: Any, name: str, run: Path, options: Mapping[str, Any]) -> Evaluation:
    """Segment the test images and score the result."""
    out = given.runs / f"{TEACHER}_{name.replace(' ', '_').replace(',', '')}_masks"
    files = find_inputs([given.data], split_file=run / "split.csv", split="test")
    segment_files(Segmenter.from_pretrained(run), files, out, save_members=True, overwrite=True, track=track, **options)
    return evaluate(out, given.data, split="test", track=track)


def last_step(run: Path) -> int:
    """Count the steps of a run."""
    return int([line["step"] for line in Run(run).lines()][-1])


def page(found: Mapping[str, Evaluation], steps: Mapping[str, int]) -> list[str]:
    """Write the table."""
    columns = {name: {key: np.array(of.scores.column(key), float) for key in SHOWN} for name, of in found.items()}
    first = columns[REFERENCE]
    rows = [
        (name, *(cell(own[key], first[key], is_first=name == REFERENCE) for key in SHOWN), ratio(own, first))
        for name, own in columns.items()
    ]
    return [
        "# One step",
        "",
        f"Command: `python benchmarks/one_step.py` after `python benchmarks/earn.py`. Machine: {machine()}.",
        "",
        WORDS.format(**steps, reference=REFERENCE, cases=len(first["ged"])),
        "",
        *table(("", *SHOWN.values(), "ratio"), rows),
    ]


def cell(own: np.ndarray, first: np.ndarray, *, is_first: bool) -> str:
    """Write a mean, and the interval of its difference from the reference."""
    low, high = bootstrap_interval(own - first) or (0.0, 0.0)
    return f"{own.mean():.4f}" + ("" if is_first else f" [{low:+.4f}, {high:+.4f}]")


def ratio(own: Mapping[str, np.ndarray], first: Mapping[str, np.ndarray]) -> str:
    """Divide the means of GED²."""
    return f"{own['ged'].mean() / first['ged'].mean():.3f}"


if __name__ == "__main__":
    guard(main)
