"""The diffusion family side by side: every network gets the same data and training time; in table 1's layout.

python benchmarks/family.py --data ../shared/data/isic2016
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch
from isic2016 import difference, learn, timed

from medsegdiff.benchmark.timing import describe_machine, in_turn
from medsegdiff.checkpoint import load_config
from medsegdiff.cli import guard
from medsegdiff.cli.console import track
from medsegdiff.config.load import load_preset
from medsegdiff.evaluation import Evaluation, evaluate
from medsegdiff.inference.files import segment_files
from medsegdiff.inference.inputs import find_inputs
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.models.budget import budget
from medsegdiff.paper.tables import load_table
from medsegdiff.pictures.cases import case_grid, saved_rows
from medsegdiff.pictures.curves import save
from medsegdiff.training.run import Run

HERE = Path(__file__).parent
METHODS = {
    "ensdiff-tiny": "EnsemDiff",
    "segdiff-tiny": "SegDiff",
    "v1-tiny": "MedsegDiff",
    "transunet-tiny": "MedsegDiff+TransUNet",
    "anchor-tiny": "Anchor",
    "v2-tiny": "MedSegDiff-V2",
}
"""Preset → row of the paper, in its order."""
RECIPE = ("data.image_size=64", "train.max_steps=1000000000", "train.val_every=1000000000", "train.val_cases=24")
"""Time is the only limit, and validation comes once, at the end, so that no network chooses among its weights."""
MEMBERS, STEPS = 5, 10
READING = """Every network has 3 to 4 million parameters (the Anchor 1.3) and the recipe of `v2-tiny` (x₀ target,
b = 0.1, AdamW, averaged weights), so that what differs is how the image gets in. Equal time is not equal steps: V2 and
the Anchor work on cells of 2×2 pixels and look at the image once, the others work at full resolution. One training run
each: the intervals are over test images, and say nothing of another seed. The paper trained at 256×256 on more images
for far longer; its columns are there to compare orders, not numbers.
"""


@dataclass(frozen=True)
class Entry:
    """A network of the family: its run and its results."""

    preset: str
    runs: Path

    @property
    def run(self) -> Path:
        """The training run."""
        return self.runs / self.preset

    @property
    def masks(self) -> Path:
        """What it made of the test images."""
        return self.runs / f"{self.preset}_masks"


def main() -> None:
    """Run the stages that have not been run, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/isic2016"))
    parser.add_argument("--runs", type=Path, default=Path("runs/family"), help="Where runs and masks go.")
    parser.add_argument("--minutes", type=float, default=15.0, help="Of training steps, for each network.")
    parser.add_argument("--only", default="", help="Train and segment the presets whose names hold this; no page.")
    given = parser.parse_args()
    entries = [Entry(preset, given.runs) for preset in METHODS]
    for entry in entries:
        if given.only in entry.preset:
            perform(entry, given.data, given.minutes)
    if not given.only:
        write_page(entries, given.data, given.minutes)


def perform(entry: Entry, data: Path, minutes: float) -> None:
    """Train a network and segment the test images, each if that has not been done."""
    if not (entry.run / "config.json").exists():
        learn(data, entry.run, load_preset(entry.preset, [*RECIPE, f"train.max_minutes={minutes}"]))
    if not (entry.masks / "segment.json").exists():
        files = find_inputs([data], split_file=entry.run / "split.csv", split="test")
        options = sampling_of(entry) | {"seed": 0}
        segmenter = Segmenter.from_pretrained(entry.run)
        segment_files(segmenter, files, entry.masks, save_members=True, track=track, **options)


def sampling_of(entry: Entry) -> dict[str, int]:
    """Give the same ensemble to all; the anchor draws none."""
    return {} if load_config(entry.run).sampling.mode == "mean" else {"members": MEMBERS, "steps": STEPS}


def write_page(entries: list[Entry], data: Path, minutes: float) -> None:
    """Write ``family_isic.md`` and the picture of some cases."""
    scores = {e.preset: evaluate(e.masks, data, split="test", track=track) for e in entries}
    seconds = time_images(entries, data)
    v2, machine = scores["v2-tiny"], describe_machine(torch.device("cpu"))
    draw(entries, data, scores)
    lines = [
        "# The family of the paper on ISIC 2016, 64 px",
        "",
        f"Command: `python benchmarks/family.py` ({machine['name']}, torch {machine['torch']}).",
        "",
        f"{minutes:g} minutes of training steps for each network on one core (validation comes on top); {MEMBERS} "
        f"members of {STEPS} steps of DPM-Solver++(2M), fused by STAPLE; {len(v2.scores)} test images, scored on their "
        "256×256 grid, with 95 % bootstrap intervals.",
        "",
        READING,
        "| method | preset | M parameters | steps | Dice | IoU | agreement | s per image | paper: Dice | paper: IoU |",
        "|---" * 10 + "|",
        *(row(entry, scores[entry.preset], seconds[entry.preset]) for entry in entries),
        "",
        "GED is left out: there is one rater. Seconds per image: all networks in turn, medians, from the picture in "
        "memory to the fused mask. The paper gives no Anchor on ISIC.",
        "",
        "Paired differences in Dice to V2, image by image:",
        "",
        "| | mean | better on |",
        "|---|---|---|",
        *(
            difference(v2, scores[entry.preset], METHODS[entry.preset]).replace("fused", "V2")
            for entry in entries
            if entry.preset != "v2-tiny"
        ),
        "",
        *shown_cases(entries),
    ]
    (HERE / "family_isic.md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


def row(entry: Entry, score: Evaluation, seconds: float) -> str:
    """Write a row of the table."""
    method, paper = METHODS[entry.preset], load_table("table1").row(METHODS[entry.preset])
    costs, log = budget(load_config(entry.run)), Run(entry.run).lines()
    theirs = [f"{paper.cells[f'ISIC {metric}']}" if paper else "–" for metric in ("Dice", "IoU")]
    agreement = score.shown("agreement", digits=3)
    cells = [method, f"`{entry.preset}`", f"{costs.parameters / 1e6:.2f}", f"{log[-1]['step']}"]
    cells += [percent(score, "dice"), percent(score, "iou"), agreement, f"{seconds:.2f}", *theirs]
    return "| " + " | ".join(cells) + " |"


def percent(score: Evaluation, metric: str) -> str:
    """Write a mean with its interval, in per cent as the paper does."""
    found = score.mean(metric)
    low, high = found.ci95 or (found.mean, found.mean)
    return f"{100 * found.mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def time_images(entries: list[Entry], data: Path, *, images: int = 4, repeats: int = 5) -> dict[str, float]:
    """Time the ensembles of some images, all networks in turn."""
    paths = sorted((data / "images").iterdir())[:images]
    runs = {}
    for entry in entries:
        segmenter = Segmenter.from_pretrained(entry.run)
        runs[entry.preset] = partial(timed, partial(segmenter, paths, **sampling_of(entry)))
        runs[entry.preset]()  # warm
    return {name: median(found) / images for name, found in in_turn(runs, repeats).items()}


def draw(entries: list[Entry], data: Path, scores: dict[str, Evaluation]) -> None:
    """Draw a case near V2's best, its median and one near its worst, as every network sees it."""
    order = scores["v2-tiny"].scores.ranked("dice")
    chosen = [order[len(order) // 20], order[len(order) // 2], order[-len(order) // 20]]
    for entry in entries:
        found = scores[entry.preset].scores
        rows = saved_rows(entry.masks, data, {name: f"Dice {found.value(name, 'dice'):.3f}" for name in chosen})
        save(case_grid(rows, max_members=5), HERE / f"family_isic_{entry.preset}.png")


def shown_cases(entries: list[Entry]) -> list[str]:
    """Show the pictures."""
    lines = ["Three test images, chosen by V2's Dice (near its best, its median, near its worst):", ""]
    for entry in entries:
        lines += [f"{METHODS[entry.preset]}:", "", f"![{entry.preset}](family_isic_{entry.preset}.png)", ""]
    return lines


if __name__ == "__main__":
    guard(main)
