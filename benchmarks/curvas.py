"""Three abdominal organs as classes (CURVAS slices, split by patient): train, segment, score by organ, write the page.

python benchmarks/curvas.py --data ../shared/data/curvas_ct --name curvas_cpu
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import numpy as np
import torch
from isic2016 import learn, segment, timed

from medsegdiff.checkpoint import load_config
from medsegdiff.cli import guard
from medsegdiff.cli.console import track
from medsegdiff.config.data import DataConfig
from medsegdiff.config.load import load_preset
from medsegdiff.evaluation import Evaluation, evaluate
from medsegdiff.io.raster import read_mask
from medsegdiff.metrics.paired import bootstrap_interval
from medsegdiff.pictures.cases import case_grid, saved_rows
from medsegdiff.pictures.curves import save
from medsegdiff.training.run import Run

HERE = Path(__file__).parent
ORGANS = ("pancreas", "kidney", "liver")
PARTS = {"fused (STAPLE of 10 members)": ".", "one member": "members/00", "anchor alone": "anchor"}


def main() -> None:
    """Run the stages that have not been run, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/curvas_ct"))
    parser.add_argument("--name", default="curvas_cpu", help="Configuration and page: benchmarks/NAME.yaml, NAME.md.")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="Where the run and the masks go.")
    given = parser.parse_args()
    run, out = given.runs / given.name, given.runs / f"{given.name}_masks"
    times = given.runs / f"{given.name}_seconds.json"
    seconds = json.loads(times.read_text()) if times.exists() else {}
    if not (run / "config.json").exists():
        config = load_preset(str(HERE / f"{given.name}.yaml"))
        seconds["train"] = timed(lambda: learn(given.data, run, config))
        times.write_text(json.dumps(seconds))
    if not (out / "segment.json").exists():
        seconds["segment"] = timed(lambda: segment(run, given.data, out))
        times.write_text(json.dumps(seconds))
    data = load_config(run).data
    scores = {
        row: evaluate(out / part, given.data, split="test", data=data, track=track) for row, part in PARTS.items()
    }
    write_page(given, data, scores, seconds)


def write_page(
    given: argparse.Namespace, data: DataConfig, scores: dict[str, Evaluation], seconds: dict[str, float]
) -> None:
    """Write ``NAME.md``, the curves, and pictures of the best, the median and the worst slice."""
    run, out = given.runs / given.name, given.runs / f"{given.name}_masks"
    fused = next(iter(scores.values()))
    ranked = fused.scores.ranked("dice")
    chosen = {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]}
    for which, case in chosen.items():
        rows = saved_rows(out, given.data, {case: f"Dice {fused.scores.value(case, 'dice'):.3f}"}, config=data)
        save(case_grid(rows, max_members=5), HERE / f"{given.name}_{which}.png")
    held = {name: set(np.unique(read_mask(given.data / "labels" / f"{name}.png"))) for name in fused.scores.groups}
    config, facts, log = load_config(run), json.loads((run / "run.json").read_text()), Run(run).lines()
    best = max((line for line in log if "dice" in line), key=lambda line: line["dice"])
    lines = [
        f"# CURVAS: pancreas, kidney and liver on slices of CT, {config.data.image_size} px",
        "",
        f"Command: `python benchmarks/curvas.py --name {given.name}`, configuration `benchmarks/{given.name}.yaml`; "
        f"{facts['cases']['train']} training, {facts['cases']['val']} validation and {len(fused.scores)} test slices, "
        "split by patient; four classes that exclude each other.",
        "",
        f"Machine: {platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"{config.train.precision}. Training: {[line['step'] for line in log][-1]} steps of batch "
        f"{config.train.batch_size} in {seconds['train'] / 60:.0f} minutes; weights of step {best['step']}, the best "
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
        *(f"![{which}]({given.name}_{which}.png)" for which in chosen),
        "",
        f"![training]({given.name}_curves.png)",
        "",
        "The slices are 8-bit renderings without Hounsfield units, each annotated by one of three raters: a small "
        "sample for trying the path of several classes, not to be compared with results on the CURVAS challenge.",
        "",
    ]
    (HERE / f"{given.name}_curves.png").write_bytes((run / "curves.png").read_bytes())
    (HERE / f"{given.name}.md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


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
