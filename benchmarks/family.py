"""The diffusion family side by side: every network gets the same data and training time; in table 1's layout.

python benchmarks/family.py --data ../shared/data/isic2016
"""

from __future__ import annotations

from functools import partial
from statistics import median

from common import CPU, HERE, Trial, difference, parser, table, timed, write_page

from medsegdiff.benchmark.timing import describe_machine, in_turn
from medsegdiff.cli import guard
from medsegdiff.config.load import load_preset
from medsegdiff.evaluation import Evaluation
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.models.base import budget
from medsegdiff.paper.tables import load_table
from medsegdiff.pictures.cases import case_grid, saved_rows
from medsegdiff.pictures.curves import save

METHODS = {
    "ensdiff-tiny": "EnsemDiff",
    "segdiff-tiny": "SegDiff",
    "v1-tiny": "MedsegDiff",
    "msd-transunet-tiny": "MedsegDiff+TransUNet",
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


def main() -> None:
    """Run the stages that have not been run, then write the page."""
    given = parser(__doc__, data="../shared/data/isic2016", runs="runs/family")
    given.add_argument("--minutes", type=float, default=15.0, help="Of training steps, for each network.")
    given.add_argument("--only", default="", help="Train and segment the presets whose names hold this; no page.")
    asked = given.parse_args()
    trials = [Trial(preset, asked.data, asked.runs) for preset in METHODS]
    for trial in trials:
        if asked.only in trial.name:
            trial.learn(load_preset(trial.name, [*RECIPE, f"train.max_minutes={asked.minutes}"]))
            trial.segment(**sampling_of(trial), seed=0)
    if not asked.only:
        write_page("family_isic", page(trials, asked.minutes))


def sampling_of(trial: Trial) -> dict[str, int]:
    """Give the same ensemble to all; the anchor draws none."""
    return {} if trial.config.sampling.mode == "mean" else {"members": MEMBERS, "steps": STEPS}


def page(trials: list[Trial], minutes: float) -> list[str]:
    """Write the page, and the pictures of some cases."""
    scores = {trial.name: trial.scores({"": "."})[""] for trial in trials}
    seconds, v2, machine = time_images(trials), scores["v2-tiny"], describe_machine(CPU)
    draw(trials, scores)
    head = ("method", "preset", "M parameters", "steps", "Dice", "IoU", "agreement", "s per image")
    return [
        "# The family of the paper on ISIC 2016, 64 px",
        "",
        f"Command: `python benchmarks/family.py` ({machine['name']}, torch {machine['torch']}).",
        "",
        f"{minutes:g} minutes of training steps for each network on one core (validation comes on top); {MEMBERS} "
        f"members of {STEPS} steps of DPM-Solver++(2M), fused by STAPLE; {len(v2.scores)} test images, scored on their "
        "256×256 grid, with 95 % bootstrap intervals.",
        "",
        READING,
        *table((*head, "paper: Dice", "paper: IoU"), (row(t, scores[t.name], seconds[t.name]) for t in trials)),
        "",
        "GED is left out: there is one rater. Seconds per image: all networks in turn, medians, from the picture in "
        "memory to the fused mask. The paper gives no Anchor on ISIC.",
        "",
        "Paired differences in Dice to V2, image by image:",
        "",
        "| | mean | better on |",
        "|---|---|---|",
        *(difference(v2, scores[name], f"V2 − {method}") for name, method in METHODS.items() if name != "v2-tiny"),
        "",
        "Three test images, chosen by V2's Dice (near its best, its median, near its worst):",
        "",
        *(line for trial in trials for line in shown_cases(trial.name)),
    ]


def row(trial: Trial, score: Evaluation, seconds: float) -> list[str]:
    """Write a row of the table."""
    method, paper = METHODS[trial.name], load_table("table1").row(METHODS[trial.name])
    theirs = [f"{paper.cells[f'ISIC {metric}']}" if paper else "–" for metric in ("Dice", "IoU")]
    cells = [method, f"`{trial.name}`", f"{budget(trial.config).parameters / 1e6:.2f}", f"{trial.log[-1]['step']}"]
    cells += [percent(score, "dice"), percent(score, "iou"), score.shown("agreement", digits=3), f"{seconds:.2f}"]
    return [*cells, *theirs]


def percent(score: Evaluation, metric: str) -> str:
    """Write a mean with its interval, in per cent as the paper does."""
    found = score.mean(metric)
    low, high = found.ci95 or (found.mean, found.mean)
    return f"{100 * found.mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def time_images(trials: list[Trial], *, images: int = 4, repeats: int = 5) -> dict[str, float]:
    """Time the ensembles of some images, all networks in turn."""
    runs = {}
    for trial in trials:
        paths = sorted((trial.data / "images").iterdir())[:images]
        runs[trial.name] = partial(timed, partial(Segmenter.from_pretrained(trial.run), paths, **sampling_of(trial)))
        runs[trial.name]()  # warm
    return {name: median(found) / images for name, found in in_turn(runs, repeats).items()}


def draw(trials: list[Trial], scores: dict[str, Evaluation]) -> None:
    """Draw a case near V2's best, its median and one near its worst, as every network sees it."""
    order = scores["v2-tiny"].scores.ranked("dice")
    chosen = [order[len(order) // 20], order[len(order) // 2], order[-len(order) // 20]]
    for trial in trials:
        found = scores[trial.name].scores
        rows = saved_rows(trial.out, trial.data, {name: f"Dice {found.value(name, 'dice'):.3f}" for name in chosen})
        save(case_grid(rows, max_members=5), HERE / f"family_isic_{trial.name}.png")


def shown_cases(preset: str) -> list[str]:
    """Show the pictures of a network."""
    return [f"{METHODS[preset]}:", "", f"![{preset}](family_isic_{preset}.png)", ""]


if __name__ == "__main__":
    guard(main)
