"""What an ensemble's uncertainty is worth on real raters: optic disc and cup (four experts), vessels (two raters).

python benchmarks/uncertainty.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from math import isnan
from pathlib import Path

from isic2016 import learn, timed
from matplotlib.figure import Figure
from tiles import cut_all

from medsegdiff.checkpoint import load_config
from medsegdiff.cli import guard
from medsegdiff.cli.console import track
from medsegdiff.config.load import load_preset
from medsegdiff.evaluation import Evaluation, evaluate
from medsegdiff.inference.files import segment_files
from medsegdiff.inference.inputs import find_inputs
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.metrics.selective import aurc, excess_aurc
from medsegdiff.pictures.cases import case_grid, saved_rows
from medsegdiff.pictures.curves import save
from medsegdiff.training.run import Run

HERE = Path(__file__).parent
MEMBERS = 16
READING = """Read with care: the anchor counts as an ensemble of one, so its HM-IoU and D_max (which rise and fall with
the number of members) do not compare with those of 16; GED² does. The probability of the ensemble is the share of its
members, a number of 17 levels; uncertainty is the entropy of their mean probability, as it is saved.
"""
PARTS = {"16 members": ".", "anchor": "anchor"}


@dataclass(frozen=True)
class Task:
    """A data set of this page."""

    name: str
    title: str
    data: Path
    remark: str


def main() -> None:
    """Run the stages that have not been run, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="Where runs and masks go.")
    given = parser.parse_args()
    tiles = given.runs / "chase_tiles"
    if not tiles.exists():
        cut_all(given.data / "chase_db1", tiles, 128)
    tasks = (
        Task(
            "drishti",
            "Optic disc and cup, four experts (Drishti-GS)",
            given.data / "drishti_gs_roi",
            "The experts' own masks were not published: what at least 1, 2, 3 and 4 of them drew stands for them, so "
            "these four are nested, and GED² is that of nested regions.",
        ),
        Task(
            "chase",
            "Vessels of the retina, two raters (CHASE_DB1)",
            tiles,
            "Tiles of 128 px of the pictures at 512 px; tiles of a person are averaged before the mean. With two "
            "raters GED² of a perfect sampler is far above 0.",
        ),
    )
    sections = [section(task, given.runs) for task in tasks]
    page = [
        "# Uncertainty against real raters",
        "",
        "Command: `python benchmarks/uncertainty.py`.",
        "",
        READING,
        *sections,
    ]
    (HERE / "uncertainty.md").write_text("\n".join(page), encoding="utf-8")
    print("\n".join(page))


def section(task: Task, runs: Path) -> str:
    """Train, segment and score a data set; write its part of the page."""
    run, out, times = runs / task.name, runs / f"{task.name}_masks", runs / f"{task.name}_seconds.json"
    seconds = json.loads(times.read_text()) if times.exists() else {}
    if not (run / "config.json").exists():
        config = load_preset(str(HERE / f"uncertainty_{task.name}.yaml"))
        seconds["train"] = timed(lambda: learn(task.data, run, config))
    if not (out / "segment.json").exists():
        seconds["segment"] = timed(lambda: segment(run, task.data, out))
    times.write_text(json.dumps(seconds))
    data = load_config(run).data
    scores = {row: evaluate(out / part, task.data, split="test", data=data, track=track) for row, part in PARTS.items()}
    for row, score in scores.items():
        score.save(runs / f"{task.name}_scores" / row.replace(" ", "_"))
    return write_section(task, run, scores, seconds)


def segment(run: Path, data: Path, out: Path) -> None:
    """Segment the test images."""
    files = find_inputs([data], split_file=run / "split.csv", split="test")
    options = {"members": MEMBERS, "steps": 20, "seed": 0}
    segment_files(Segmenter.from_pretrained(run), files, out, save_members=True, overwrite=True, track=track, **options)


def write_section(task: Task, run: Path, scores: dict[str, Evaluation], seconds: dict[str, float]) -> str:
    """Write the numbers and the plot of a data set."""
    fused = scores["16 members"]
    structures = fused.setup.structures
    several = len(structures) > 1
    metrics = {"GED² (16)": "ged", "HM-IoU": "hm_iou", "D_max": "d_max", "agreement": "agreement"}
    metrics |= {"ECE": "ece", "ECE near": "ece_near", "Brier": "brier"}
    draw(scores, HERE / f"uncertainty_{task.name}.png")
    ranked = fused.scores.ranked("dice")
    shown = [ranked[0], ranked[len(ranked) // 2], ranked[-1]]
    value = fused.scores.value
    notes = {name: f"Dice {value(name, 'dice'):.3f}, GED² {value(name, 'ged'):.3f}" for name in shown}
    out = run.parent / f"{task.name}_masks"
    rows = saved_rows(out, task.data, notes, config=load_config(run).data)
    save(case_grid(rows), HERE / f"uncertainty_{task.name}_cases.png")
    (HERE / f"uncertainty_{task.name}_curves.png").write_bytes((run / "curves.png").read_bytes())
    config, log = load_config(run), Run(run).lines()
    facts = json.loads((run / "run.json").read_text())
    lines = [
        f"## {task.title}",
        "",
        f"Configuration `benchmarks/uncertainty_{task.name}.yaml`: {config.data.image_size} px, "
        f"{[line['step'] for line in log][-1]} steps of batch {config.train.batch_size}"
        + (f" in {seconds['train'] / 60:.0f} minutes" if "train" in seconds else "")
        + f", {facts['cases']['train']} training, {facts['cases']['val']} validation and {len(fused.scores)} test "
        f"images; {MEMBERS} members × 20 steps. {task.remark}",
        "",
        "Mean with 95 % bootstrap interval over images"
        + (f" ({fused.setup.groups} persons)" if fused.setup.groups else "")
        + ":",
        "",
        "| | " + " | ".join(f"Dice {name}" if several else "Dice" for name in structures) + " | HD95 (px) |",
        "|---" * (len(structures) + 2) + "|",
        *(dice_row(row, score, structures) for row, score in scores.items()),
        "",
        "| | " + " | ".join(metrics) + " |",
        "|---" * (len(metrics) + 1) + "|",
        *(uncertainty_row(row, score, list(metrics.values())) for row, score in scores.items()),
        "",
        "| over all pixels | AURC | excess AURC | ρ of disagreement with 1 − Dice |",
        "|---|---|---|---|",
        *(selective_row(row, score) for row, score in scores.items()),
        "",
        f"![reliability, and risk by coverage](uncertainty_{task.name}.png)",
        "",
        "Best, median and worst test image; reference: grey is the share of raters.",
        "",
        f"![cases](uncertainty_{task.name}_cases.png)",
        "",
        f"![training](uncertainty_{task.name}_curves.png)",
        "",
    ]
    return "\n".join(lines)


def draw(scores: dict[str, Evaluation], path: Path) -> None:
    """Plot reliability near the masks and risk by coverage, ensemble and anchor side by side."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], "--", color="grey", linewidth=1)
    for row, score in scores.items():
        pool = score.pooled
        if pool is None:
            continue
        curve, risk = pool.near.curve(), pool.selection.risk_coverage()
        used = curve.weight > 0
        left.plot(
            curve.predicted[used], curve.observed[used], "o-", markersize=4, label=f"{row}: ECE {pool.near.ece():.3f}"
        )
        right.plot(risk.coverage, risk.value, label=f"{row}: AURC {aurc(risk):.5f}")
    left.set(xlabel="probability", ylabel="how often it was there", title="reliability near the masks")
    right.set(
        xlabel="coverage",
        ylabel="error rate of the pixels kept",
        title="risk by coverage",
        xlim=(0.85, 1),
        ylim=(0, None),
    )
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    save(figure, path)


def dice_row(row: str, score: Evaluation, structures: tuple[str, ...]) -> str:
    """Write Dice by structure, and HD95."""
    names = structures if len(structures) > 1 else ("",)
    return (
        f"| {row} | "
        + " | ".join(score.shown("dice", name) for name in names)
        + f" | {score.shown('hd95', digits=1)} |"
    )


def uncertainty_row(row: str, score: Evaluation, metrics: list[str]) -> str:
    """Write what needs raters, members or probabilities."""
    return f"| {row} | " + " | ".join(score.shown(m, digits=3) for m in metrics) + " |"


def selective_row(row: str, score: Evaluation) -> str:
    """Write what follows from the order of pixels by uncertainty."""
    pool = score.pooled
    assert pool is not None
    risk = pool.selection.risk_coverage()
    rho = next(iter(score.correlation.values()), float("nan"))
    return f"| {row} | {aurc(risk):.5f} | {excess_aurc(risk):.5f} | {'–' if isnan(rho) else f'{rho:.2f}'} |"


if __name__ == "__main__":
    guard(main)
