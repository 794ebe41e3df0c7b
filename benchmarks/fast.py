"""What v2-fast keeps of the plain recipe: the same data and training time, Dice and what raters make of the ensemble.

python benchmarks/fast.py --data ../shared/data/isic2016
"""

from __future__ import annotations

from pathlib import Path

from common import HERE, Trial, parser, table, write_page

from medsegdiff.cli import guard
from medsegdiff.config.load import load_preset
from medsegdiff.data.phantom import PhantomSource, write_phantom
from medsegdiff.evaluation import Evaluation, Measure
from medsegdiff.models.base import budget

RECIPES = {"plain": "v2-tiny, 20 steps", "fast": "v2-fast-tiny, 5 steps"}
METRICS = {"Dice": "dice", "HD95 (px)": "hd95", "agreement": "agreement", "ECE near": "ece_near"}
RATED = {"GED² (10)": "ged", "HM-IoU": "hm_iou"}


def main() -> None:
    """Run the stages that have not been run, then write the page."""
    given = parser(__doc__, data="../shared/data/isic2016", runs="runs").parse_args()
    phantom = given.runs / "fast_phantom"
    if not phantom.exists():
        write_phantom(PhantomSource(load_preset(str(HERE / "fast_phantom_plain.yaml")).data), phantom)
    parts = [
        line for name, data in (("isic", given.data), ("phantom", phantom)) for line in section(name, data, given.runs)
    ]
    write_page("fast", ["# v2-fast beside the plain recipe", "", "Command: `python benchmarks/fast.py`.", "", *parts])


def section(name: str, data: Path, runs: Path) -> list[str]:
    """Train, segment and score both recipes on a data set."""
    scores: dict[str, Evaluation] = {}
    costs = []
    for kind, title in RECIPES.items():
        trial = Trial(f"fast_{name}_{kind}", data, runs)
        trial.learn()
        trial.segment(members=10)
        scores |= trial.scores({title: ".", f"its anchor ({kind})": "anchor"})
        costs.append(costs_of(trial, title))
    first = next(iter(scores.values()))
    shown = METRICS | (RATED if Measure("ged") in first.summary else {})
    rows = ([title, *(score.shown(metric, digits=3) for metric in shown.values())] for title, score in scores.items())
    return [
        f"## {data.name}, 64 px, {len(first.scores)} test images",
        "",
        *table(("", "steps", "minutes", "M parameters", "GMAC for 10 members"), costs),
        "",
        *table(("", *shown), rows),
        "",
    ]


def costs_of(trial: Trial, title: str) -> tuple[str, ...]:
    """Write what a recipe costs, in training and for an ensemble."""
    price, steps = budget(trial.config), trial.config.sampling.steps
    whole = price.condition_gmac + 10 * steps * price.denoiser_gmac
    minutes = trial.seconds.get("train", float("nan")) / 60
    return title, str(trial.steps), f"{minutes:.1f}", f"{price.parameters / 1e6:.2f}", f"{whole:.1f}"


if __name__ == "__main__":
    guard(main)
