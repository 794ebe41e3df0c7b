"""What v2-fast keeps of the plain recipe: the same data and training time, Dice and what raters make of the ensemble.

python benchmarks/fast.py --data ../shared/data/isic2016
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from isic2016 import learn, timed

from medsegdiff.checkpoint import load_config
from medsegdiff.cli import guard
from medsegdiff.cli.console import track
from medsegdiff.config.load import load_preset
from medsegdiff.data.phantom import PhantomSource, write_phantom
from medsegdiff.evaluation import Evaluation, Measure, evaluate
from medsegdiff.inference.files import segment_files
from medsegdiff.inference.inputs import find_inputs
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.models.budget import budget
from medsegdiff.training.run import Run

HERE = Path(__file__).parent
RECIPES = {"plain": "v2-tiny, 20 steps", "fast": "v2-fast-tiny, 5 steps"}
METRICS = {"Dice": "dice", "HD95 (px)": "hd95", "agreement": "agreement", "ECE near": "ece_near"}
RATED = {"GED² (10)": "ged", "HM-IoU": "hm_iou"}


def main() -> None:
    """Run the stages that have not been run, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/isic2016"))
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="Where runs and masks go.")
    given = parser.parse_args()
    phantom = given.runs / "fast_phantom"
    if not phantom.exists():
        write_phantom(PhantomSource(load_preset(str(HERE / "fast_phantom_plain.yaml")).data), phantom)
    parts = [section(name, data, given.runs) for name, data in (("isic", given.data), ("phantom", phantom))]
    page = ["# v2-fast beside the plain recipe", "", "Command: `python benchmarks/fast.py`.", "", *parts]
    (HERE / "fast.md").write_text("\n".join(page), encoding="utf-8")
    print("\n".join(page))


def section(name: str, data: Path, runs: Path) -> str:
    """Train, segment and score both recipes on a data set."""
    scores: dict[str, Evaluation] = {}
    rows = ["| | steps | minutes | M parameters | GMAC for 10 members |", "|---|---|---|---|---|"]
    for kind, title in RECIPES.items():
        run, out = runs / f"fast_{name}_{kind}", runs / f"fast_{name}_{kind}_masks"
        times = runs / f"fast_{name}_{kind}_seconds.json"
        seconds = json.loads(times.read_text()) if times.exists() else {}
        if not (run / "config.json").exists():
            config = load_preset(str(HERE / f"fast_{name}_{kind}.yaml"))
            seconds["train"] = timed(lambda run=run, config=config: learn(data, run, config))
            times.write_text(json.dumps(seconds))
        if not (out / "segment.json").exists():
            seconds["segment"] = timed(lambda run=run, out=out: segment(run, data, out))
            times.write_text(json.dumps(seconds))
        score = evaluate(out, data, split="test", data=load_config(run).data, track=track)
        scores[title] = score
        scores[f"its anchor ({kind})"] = evaluate(
            out / "anchor", data, split="test", data=load_config(run).data, track=track
        )
        config, steps = load_config(run), [line["step"] for line in Run(run).lines()][-1]
        costs = budget(config)
        whole = costs.condition_gmac + 10 * config.sampling.steps * costs.denoiser_gmac
        rows.append(
            f"| {title} | {steps} | {seconds.get('train', float('nan')) / 60:.1f} | {costs.parameters / 1e6:.2f} | "
            f"{whole:.1f} |"
        )
    first = next(iter(scores.values()))
    shown = METRICS | (RATED if Measure("ged") in first.summary else {})
    lines = [f"## {data.name}, 64 px, {len(first.scores)} test images", "", *rows, ""]
    lines += ["| | " + " | ".join(shown) + " |", "|---" * (len(shown) + 1) + "|"]
    for title, score in scores.items():
        cells = [score.shown(m, digits=3) for m in shown.values()]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def segment(run: Path, data: Path, out: Path) -> None:
    """Segment the test images with ten members, in the run's own number of steps."""
    files = find_inputs([data], split_file=run / "split.csv", split="test")
    segment_files(Segmenter.from_pretrained(run), files, out, save_members=True, track=track, members=10)


if __name__ == "__main__":
    guard(main)
