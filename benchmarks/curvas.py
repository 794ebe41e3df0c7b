"""Three abdominal organs as classes (CURVAS slices, split by patient): train, segment, score by organ, write the page.

python benchmarks/curvas.py --data ../shared/data/curvas_ct --name curvas_cpu
"""

from __future__ import annotations

import numpy as np
from common import Trial, machine, parser, write_page

from medsegdiff.cli import guard
from medsegdiff.evaluation import Evaluation
from medsegdiff.io.raster import read_mask
from medsegdiff.metrics.paired import bootstrap_interval

ORGANS = ("pancreas", "kidney", "liver")
PARTS = {"fused (STAPLE of 10 members)": ".", "one member": "members/00", "anchor alone": "anchor"}


def main() -> None:
    """Run the stages that have not been run, then write the page."""
    given = parser(__doc__, data="../shared/data/curvas_ct", runs="runs")
    given.add_argument("--name", default="curvas_cpu", help="Configuration and page: benchmarks/NAME.yaml, NAME.md.")
    asked = given.parse_args()
    trial = Trial(asked.name, asked.data, asked.runs)
    trial.learn()
    trial.segment(members=10, steps=20, seed=0)
    write_page(trial.name, page(trial, trial.scores(PARTS)))


def page(trial: Trial, scores: dict[str, Evaluation]) -> list[str]:
    """Write the page, and the pictures of the best, the median and the worst slice."""
    fused, config, cases, seconds = next(iter(scores.values())), trial.config, trial.cases, trial.seconds
    held = {name: set(np.unique(read_mask(trial.data / "labels" / f"{name}.png"))) for name in fused.scores.groups}
    return [
        f"# CURVAS: pancreas, kidney and liver on slices of CT, {config.data.image_size} px",
        "",
        f"Command: `python benchmarks/curvas.py --name {trial.name}`, configuration `benchmarks/{trial.name}.yaml`; "
        f"{cases['train']} training, {cases['val']} validation and {len(fused.scores)} test slices, "
        "split by patient; four classes that exclude each other.",
        "",
        f"Machine: {machine()}, {config.train.precision}. Training: {trial.steps} steps of batch "
        f"{config.train.batch_size} in {seconds['train'] / 60:.0f} minutes; weights of step {trial.best}, the best "
        f"validation. Segmenting: 10 members × 20 steps for {len(fused.scores)} slices in {seconds['segment']:.0f} s.",
        "",
        "Mean over test slices on the native 256×256 grid, with 95 % bootstrap intervals over slices. *All* counts a "
        "slice without the organ as 1 if none is predicted and as 0 if some is (HD95: 0 px and the diagonal, 362 px).",
        "",
        "| | organ | slices | Dice | IoU | HD95 (px) |",
        "|---|---|---|---|---|---|",
        *(row for name, score in scores.items() for row in rows_of(name, score, held)),
        "",
        "Best, median and worst test slice by mean Dice of the fused labels "
        "(pancreas green, kidney amber, liver blue):",
        "",
        *trial.draw_extremes(fused),
        "",
        "The slices are 8-bit renderings without Hounsfield units, each annotated by one of three raters: a small "
        "sample for trying the path of several classes, not to be compared with results on the CURVAS challenge.",
    ]


def rows_of(name: str, score: Evaluation, held: dict[str, set[int]]) -> list[str]:
    """Make the rows of one kind of mask: each organ over all slices, and over those that hold it."""
    rows = []
    for value, organ in enumerate(ORGANS, start=1):
        present = [name for name in score.scores.groups if value in held[name]]
        for which, cases in (("all", list(score.scores.groups)), ("with it", present)):
            numbers = (
                shown([score.scores.value(name, metric, organ) for name in cases]) for metric in ("dice", "iou", "hd95")
            )
            rows.append(f"| {name} | {organ} | {which}: {len(cases)} | {' | '.join(numbers)} |")
    return rows


def shown(values: list[float]) -> str:
    """Write a mean with its interval."""
    low, high = bootstrap_interval(np.array(values)) or (values[0], values[0])
    digits = 3 if max(values) <= 1 else 1
    return f"{np.mean(values):.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


if __name__ == "__main__":
    guard(main)
