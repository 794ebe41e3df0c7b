"""Skin lesions (ISIC 2016 crops): train, segment the test images, score, and write the page with its pictures.

python benchmarks/isic2016.py --data ../shared/data/isic2016 --name isic2016_cpu
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from common import Trial, difference, machine, parser, write_page

from medsegdiff.cli import guard
from medsegdiff.evaluation import Evaluation
from medsegdiff.io.raster import read_mask, write_mask
from medsegdiff.models.base import budget

PARTS = {
    "fused mask (STAPLE of 10 members)": ".",
    "majority of the same members": "majority",
    "one member": "members/00",
    "anchor alone": "anchor",
}


def main() -> None:
    """Run the stages that have not been run, then write the page."""
    given = parser(__doc__, data="../shared/data/isic2016", runs="runs")
    given.add_argument("--name", default="isic2016_cpu", help="Configuration and page: benchmarks/NAME.yaml, NAME.md.")
    asked = given.parse_args()
    trial = Trial(asked.name, asked.data, asked.runs)
    trial.learn()
    trial.segment(members=10, steps=20, seed=0)
    fuse_by_majority(trial.out)
    write_page(trial.name, page(trial, trial.scores(PARTS)))


def fuse_by_majority(out: Path) -> None:
    """Fuse the saved members once more, to compare."""
    for path in sorted((out / "masks").iterdir()):
        votes = np.stack([read_mask(member / "masks" / path.name) > 0 for member in (out / "members").iterdir()])
        write_mask(out / "majority" / "masks" / path.name, (votes.mean(axis=0) >= 0.5).astype(np.uint8) * np.uint8(255))


def page(trial: Trial, scores: dict[str, Evaluation]) -> list[str]:
    """Write the page, and the pictures of the best, the median and the worst case."""
    fused, config, cases, seconds = next(iter(scores.values())), trial.config, trial.cases, trial.seconds
    costs = budget(config)
    rate = np.median([line["images_per_s"] for line in trial.log if "images_per_s" in line])
    return [
        f"# ISIC 2016 crops, {config.data.image_size} px",
        "",
        f"Command: `python benchmarks/isic2016.py --name {trial.name}`, configuration `benchmarks/{trial.name}.yaml`, "
        f"{cases['train']} training, {cases['val']} validation and {len(fused.scores)} test images.",
        "",
        f"Machine: {machine()}, {config.train.precision}. Network: {costs.parameters / 1e6:.2f} M parameters, "
        f"{costs.condition_gmac:.2f} GMAC condition, {costs.denoiser_gmac:.2f} GMAC denoiser.",
        "",
        f"Training: {trial.steps} steps of batch {config.train.batch_size} in {seconds['train'] / 60:.0f} minutes "
        f"({rate:.1f} images/s while training); weights of step {trial.best}, the best validation. Segmenting: "
        f"10 members × 20 steps of DPM-Solver++(2M) for {len(fused.scores)} images in "
        f"{seconds['segment'] / 60:.1f} minutes.",
        "",
        "Scores on the native 256×256 grid, mean over the test images with 95 % bootstrap intervals (2000 resamples):",
        "",
        "| | Dice | IoU | HD95 (px) |",
        "|---|---|---|---|",
        *(
            f"| {row} | {s.shown('dice')} | {s.shown('iou')} | {s.shown('hd95', digits=2)} |"
            for row, s in scores.items()
        ),
        "",
        "Paired differences in Dice, image by image:",
        "",
        "| | mean | better on |",
        "|---|---|---|",
        *(difference(fused, scores[other], f"fused − {other}") for other in list(scores)[1:]),
        "",
        "Best, median and worst test image by Dice of the fused mask:",
        "",
        *trial.draw_extremes(fused),
        "",
        "The images are centre crops of 256×256 pixels, so these numbers are not comparable with published ISIC 2016 "
        "results. Any folder with images/, masks/ and split.csv can be given with --data.",
    ]


if __name__ == "__main__":
    guard(main)
