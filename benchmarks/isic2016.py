"""Skin lesions (ISIC 2016 crops): train, segment the test images, score, and write the page with its pictures.

python benchmarks/isic2016.py --data ../shared/data/isic2016 --name isic2016_cpu
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from medsegdiff.checkpoint import load_config
from medsegdiff.cli import guard
from medsegdiff.cli.console import track
from medsegdiff.config.load import load_preset
from medsegdiff.config.run import Config
from medsegdiff.evaluation import Evaluation, evaluate
from medsegdiff.inference.files import segment_files
from medsegdiff.inference.inputs import find_inputs
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.io.raster import read_mask, write_mask
from medsegdiff.metrics.paired import bootstrap_interval
from medsegdiff.models.budget import budget
from medsegdiff.pictures.cases import case_grid, saved_rows
from medsegdiff.pictures.curves import save
from medsegdiff.training.run import Run
from medsegdiff.training.train import train

HERE = Path(__file__).parent
PARTS = {
    "fused mask (STAPLE of 10 members)": ".",
    "majority of the same members": "majority",
    "one member": "members/00",
    "anchor alone": "anchor",
}


def main() -> None:
    """Run the stages that have not been run, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/isic2016"))
    parser.add_argument("--name", default="isic2016_cpu", help="Configuration and page: benchmarks/NAME.yaml, NAME.md.")
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
    fuse_by_majority(out)
    scores = {name: evaluate(out / part, given.data, split="test", track=track) for name, part in PARTS.items()}
    write_page(given.name, given.data, run, out, scores, seconds)


def timed(work: Callable[[], object]) -> float:
    """Measure how long something takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def learn(data: Path, run: Path, config: Config) -> None:
    """Train from the start, in one go: what is timed is all of it."""
    if train(data, run, config, console=Console(), track=track).reason == "interrupted":
        raise KeyboardInterrupt


def segment(run: Path, data: Path, out: Path) -> None:
    """Segment the test images with ten members."""
    files = find_inputs([data], split_file=run / "split.csv", split="test")
    options = {"members": 10, "steps": 20, "seed": 0}
    segment_files(Segmenter.from_pretrained(run), files, out, save_members=True, overwrite=True, track=track, **options)


def fuse_by_majority(out: Path) -> None:
    """Fuse the saved members once more, to compare."""
    for path in sorted((out / "masks").iterdir()):
        votes = np.stack([read_mask(member / "masks" / path.name) > 0 for member in (out / "members").iterdir()])
        write_mask(out / "majority" / "masks" / path.name, (votes.mean(axis=0) >= 0.5).astype(np.uint8) * np.uint8(255))


def write_page(
    name: str, data: Path, run: Path, out: Path, scores: dict[str, Evaluation], seconds: dict[str, float]
) -> None:
    """Write ``NAME.md`` and the pictures of the best, the median and the worst case."""
    fused = next(iter(scores.values()))
    ranked = fused.scores.ranked("dice")
    chosen = {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]}
    for which, case in chosen.items():
        row = saved_rows(out, data, {case: f"Dice {fused.scores.value(case, 'dice'):.3f}"})
        save(case_grid(row, max_members=5), HERE / f"{name}_{which}.png")
    config, facts = load_config(run), json.loads((run / "run.json").read_text())
    costs, log = budget(config), Run(run).lines()
    rate = np.median([line["images_per_s"] for line in log if "images_per_s" in line])
    trained_for = [line["step"] for line in log][-1]
    best = max((line for line in log if "dice" in line), key=lambda line: line["dice"])
    lines = [
        f"# ISIC 2016 crops, {config.data.image_size} px",
        "",
        f"Command: `python benchmarks/isic2016.py --name {name}`, configuration `benchmarks/{name}.yaml`, "
        f"{facts['cases']['train']} training, {facts['cases']['val']} validation and {len(fused.scores)} test images.",
        "",
        f"Machine: {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch "
        f"{torch.__version__}, {config.train.precision}. Network: {costs.parameters / 1e6:.2f} M parameters, "
        f"{costs.condition_gmac:.2f} GMAC condition, {costs.denoiser_gmac:.2f} GMAC denoiser.",
        "",
        f"Training: {trained_for} steps of batch {config.train.batch_size} in {seconds['train'] / 60:.0f} minutes "
        f"({rate:.1f} images/s while training); weights of step {best['step']}, the best validation. Segmenting: "
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
        *(difference(fused, scores[other], other) for other in list(scores)[1:]),
        "",
        "Best, median and worst test image by Dice of the fused mask:",
        "",
        *(f"![{which}]({name}_{which}.png)" for which in chosen),
        "",
        f"![training]({name}_curves.png)",
        "",
        "The images are centre crops of 256×256 pixels, so these numbers are not comparable with published ISIC 2016 "
        "results. Any folder with images/, masks/ and split.csv can be given with --data.",
        "",
    ]
    (HERE / f"{name}_curves.png").write_bytes((run / "curves.png").read_bytes())
    (HERE / f"{name}.md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


def difference(a: Evaluation, b: Evaluation, name: str) -> str:
    """Compare two scores of the same images."""
    gains = np.array(a.scores.column("dice")) - np.array(b.scores.column("dice"))
    low, high = bootstrap_interval(gains) or (0.0, 0.0)
    share = np.mean(gains > 0)
    return f"| fused − {name} | {gains.mean():+.4f} [{low:+.4f}, {high:+.4f}] | {share:.0%} of images |"


if __name__ == "__main__":
    guard(main)
