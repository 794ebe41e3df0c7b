"""What an ensemble's uncertainty is worth on real raters: optic disc and cup (four experts), vessels (two raters).

python benchmarks/uncertainty.py --data ../shared/data
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from math import isnan
from pathlib import Path

import numpy as np
from common import HERE, Trial, parser, table, write_page
from matplotlib.figure import Figure
from PIL import Image

from medsegdiff.cli import guard
from medsegdiff.config.load import load_preset
from medsegdiff.evaluation import Evaluation
from medsegdiff.metrics.selective import aurc, excess_aurc
from medsegdiff.pictures.cases import case_grid, saved_rows
from medsegdiff.pictures.curves import save

MEMBERS = 16
READING = """Read with care: the anchor counts as an ensemble of one, so its HM-IoU and D_max (which rise and fall with
the number of members) do not compare with those of 16; GED² does. The probability of the ensemble is the share of its
members, a number of 17 levels; uncertainty is the entropy of their mean probability, as it is saved.
"""
PARTS = {"16 members": ".", "anchor": "anchor"}
METRICS = {
    "GED² (16)": "ged",
    "HM-IoU": "hm_iou",
    "D_max": "d_max",
    "agreement": "agreement",
    "ECE": "ece",
    "ECE near": "ece_near",
    "Brier": "brier",
}


@dataclass(frozen=True)
class Task:
    """A data set of this page."""

    name: str
    title: str
    data: Path
    remark: str


def main() -> None:
    """Run the stages that have not been run, then write the page."""
    given = parser(__doc__, data="../shared/data", runs="runs").parse_args()
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
    head = ["# Uncertainty against real raters", "", "Command: `python benchmarks/uncertainty.py`.", "", READING]
    write_page("uncertainty", [*head, *(line for lines in sections for line in lines)])


def cut_all(data: Path, out: Path, side: int) -> None:
    """Cut pictures and the masks of their raters into tiles, so that structures of a pixel's width keep it.

    ``patient`` is the person whose left and right eye were photographed.
    """
    rows = []
    for entry in csv.DictReader((data / "split.csv").open(encoding="utf-8")):
        name = entry["id"]
        names = cut(next((data / "images_512").glob(f"{name}.*")), out / "images", side)
        for rater in sorted((data / "masks_512").iterdir()):
            cut(rater / f"{name}.png", out / "masks" / rater.name, side)
        rows += [{"id": tile, "split": entry["split"], "patient": name.rstrip("LR")} for tile in names]
    with (out / "split.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["id", "split", "patient"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def cut(picture: Path, folder: Path, side: int) -> list[str]:
    """Write the tiles of a picture and name them; ``_r1c2`` is the second row's third."""
    pixels = np.asarray(Image.open(picture))
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for row, column in np.ndindex(pixels.shape[0] // side, pixels.shape[1] // side):
        tile = pixels[row * side : (row + 1) * side, column * side : (column + 1) * side]
        names.append(f"{picture.stem}_r{row}c{column}")
        Image.fromarray(tile).save(folder / f"{names[-1]}.png")
    return names


def section(task: Task, runs: Path) -> list[str]:
    """Train, segment and score a data set; write its part of the page."""
    trial = Trial(task.name, task.data, runs)
    trial.learn(load_preset(str(HERE / f"uncertainty_{task.name}.yaml")))
    trial.segment(members=MEMBERS, steps=20, seed=0)
    scores = trial.scores(PARTS)
    for row, score in scores.items():
        score.save(runs / f"{task.name}_scores" / row.replace(" ", "_"))
    return written(task, trial, scores)


def written(task: Task, trial: Trial, scores: dict[str, Evaluation]) -> list[str]:
    """Write the numbers and the plots of a data set."""
    fused, config, cases = scores["16 members"], trial.config, trial.cases
    structures = fused.setup.structures
    overlaps = [f"Dice {name}" for name in structures] if len(structures) > 1 else ["Dice"]
    draw(scores, HERE / f"uncertainty_{task.name}.png")
    draw_cases(task, trial, fused)
    minutes = f" in {trial.seconds['train'] / 60:.0f} minutes" if "train" in trial.seconds else ""
    persons = f" ({fused.setup.groups} persons)" if fused.setup.groups else ""
    return [
        f"## {task.title}",
        "",
        f"Configuration `benchmarks/uncertainty_{task.name}.yaml`: {config.data.image_size} px, {trial.steps} steps of "
        f"batch {config.train.batch_size}{minutes}, {cases['train']} training, {cases['val']} validation and "
        f"{len(fused.scores)} test images; {MEMBERS} members × 20 steps. {task.remark}",
        "",
        f"Mean with 95 % bootstrap interval over images{persons}:",
        "",
        *table(("", *overlaps, "HD95 (px)"), (dice_row(row, score, structures) for row, score in scores.items())),
        "",
        *table(("", *METRICS), (uncertainty_row(row, score) for row, score in scores.items())),
        "",
        *table(
            ("over all pixels", "AURC", "excess AURC", "ρ of disagreement with 1 − Dice"),
            (selective_row(row, score) for row, score in scores.items()),
        ),
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


def draw_cases(task: Task, trial: Trial, fused: Evaluation) -> None:
    """Draw the best, the median and the worst case, and the curves of training."""
    ranked, value = fused.scores.ranked("dice"), fused.scores.value
    shown = [ranked[0], ranked[len(ranked) // 2], ranked[-1]]
    notes = {name: f"Dice {value(name, 'dice'):.3f}, GED² {value(name, 'ged'):.3f}" for name in shown}
    rows = saved_rows(trial.out, task.data, notes, config=trial.config.data)
    save(case_grid(rows), HERE / f"uncertainty_{task.name}_cases.png")
    (HERE / f"uncertainty_{task.name}_curves.png").write_bytes((trial.run / "curves.png").read_bytes())


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


def dice_row(row: str, score: Evaluation, structures: tuple[str, ...]) -> list[str]:
    """Write Dice by structure, and HD95."""
    names = structures if len(structures) > 1 else ("",)
    return [row, *(score.shown("dice", name) for name in names), score.shown("hd95", digits=1)]


def uncertainty_row(row: str, score: Evaluation) -> list[str]:
    """Write what needs raters, members or probabilities."""
    return [row, *(score.shown(metric, digits=3) for metric in METRICS.values())]


def selective_row(row: str, score: Evaluation) -> list[str]:
    """Write what follows from the order of pixels by uncertainty."""
    pool = score.pooled
    assert pool is not None
    risk, rho = pool.selection.risk_coverage(), next(iter(score.correlation.values()), float("nan"))
    return [row, f"{aurc(risk):.5f}", f"{excess_aurc(risk):.5f}", "–" if isnan(rho) else f"{rho:.2f}"]


if __name__ == "__main__":
    guard(main)
