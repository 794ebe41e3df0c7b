"""How the denoiser is trained: one change at a time, at equal processor time, on lesions whose raters are known.

python benchmarks/recipe.py --seeds 0,1,2
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import numpy as np
import torch
from common import CPU, parser, table, write_page
from scipy.ndimage import binary_dilation

from medsegdiff.benchmark.training import phantom_stream, trainer_step
from medsegdiff.cli import guard
from medsegdiff.config.load import load_preset
from medsegdiff.config.run import Config
from medsegdiff.config.spec import ResolvedConfig, assumed
from medsegdiff.data.loader import as_batch, training_loader
from medsegdiff.data.phantom import Lesion, make_lesion
from medsegdiff.data.transforms import prepare
from medsegdiff.fusion.fusers import decide
from medsegdiff.inference.ensemble import Ensemble, EnsembleSampler
from medsegdiff.models.checkpoint import load_model
from medsegdiff.seeding import derive_seed
from medsegdiff.training.train import train
from medsegdiff.types import Case, Geometry

SIZE, MEMBERS, NEAR = 64, 16, 10
BASE = (
    f"data.image_size={SIZE}",
    "data.orientation=free",
    "train.val_every=1000000",
    "train.save_every=1000000",
    "train.val_cases=1",
    "train.draws=1",
    "train.anchor_alone=0",
)
"""The preset without what the rows below are about."""
ALONE = "Condition Model alone first"
RECIPES: dict[str, tuple[str, ...]] = {
    "plain": (),
    ALONE: ("train.anchor_alone=0.5",),
    "2 draws per look": ("train.draws=2",),
    "4 draws per look": ("train.draws=4",),
    "Dice falls with the noise": ("loss.x_0_dice_falls=true",),
    "0.1 Dice": ("loss.x_0_dice=0.1",),
    "Bayes residual": ("diffusion.residual=true",),
    "sum beside U-SA": ("model.anchor_add=true",),
    "recycling": ("loss.recycled=0.5",),
    "image seen": ("model.see_image=true",),
    "deep supervision": ("model.deep_supervision=true",),
    "batches of 16": ("train.batch_size=16",),
    "light augmentation": ("data.augmentation=light",),
}
FLAT = {"recycling": 1.17}
"""Costs that a median of steps does not see: half of the batches pay one more forward pass."""
NUMBERS = {
    "anchor": "anchor",
    "majority": "majority",
    "staple": "STAPLE",
    "dice": "expected Dice",
    "member": "one member",
    "ged": "GED²",
    "slope": "slope of parts",
    "nll": "log score: mixture",
    "nll_anchor": "anchor",
}
WORDS = f"""Phantom at {SIZE} px, preset `v2-fast-tiny`; the plain one has one draw per look, and both networks
learn from the first step. Each change is made alone. Steps are as many as fit into the processor time that the
plain one takes for its own; seconds of a step were measured interleaved. Scored on fresh lesions, against the
*exact* law of their raters: expected Dice of each mask with one rater, times 100; GED² of {MEMBERS} members to the
law, without bias (0 is perfect); the slope with which the share of members that draw a part (rim, satellite) rises
with the share of raters that do (1 is right, above 1 members take the side of the many); the log score of
probabilities near lesions, in nats, of the uncalibrated mixture and of the anchor. ± is the standard deviation
over seeds. No mask can have more than the last line says."""


@dataclass(frozen=True)
class Fresh:
    """A lesion that was never trained on, with the law of its raters."""

    name: str
    lesion: Lesion

    @property
    def case(self) -> Case:
        """The picture as a file of 8 bits would hold it."""
        image = (np.round(self.lesion.image * 255) / np.float32(255)).astype(np.float32)
        return Case(self.name, image, None, Geometry((SIZE, SIZE), (1.0, 1.0)))


def fresh_lesions(count: int) -> list[Fresh]:
    """Make lesions of a seed of their own."""
    return [Fresh(str(number), make_lesion(SIZE, derive_seed(12345, "fresh", str(number)))) for number in range(count)]


def main() -> None:
    """Train and score what is missing, and write the page."""
    asked = parser(__doc__, runs="runs/recipe")
    asked.add_argument("--seeds", default="0,1,2", help="Of training.")
    asked.add_argument("--steps", type=int, default=800, help="Of the plain one; others have as much time.")
    asked.add_argument("--lesions", type=int, default=120)
    asked.add_argument("--recipes", default=",".join(RECIPES), help="By name.")
    given = asked.parse_args()
    torch.set_num_threads(1)
    given.runs.mkdir(parents=True, exist_ok=True)
    names, seeds = given.recipes.split(","), [int(seed) for seed in given.seeds.split(",")]
    costs = known_costs(given.runs / "costs.json")
    lesions = fresh_lesions(given.lesions)
    for seed in seeds:
        for name in names:
            file = given.runs / f"{name.replace(' ', '_')}-{seed}.json"
            if not file.exists():
                steps = round(given.steps / costs[name])
                found = trial(name, steps, seed, given.runs / f"{name.replace(' ', '_')}-{seed}", lesions)
                file.write_text(json.dumps(found))
                print(name, seed, found, flush=True)
    command = f"python benchmarks/recipe.py --seeds {given.seeds} --steps {given.steps}"
    if names != [*RECIPES]:
        command += f' --recipes "{given.recipes}"'
    write_page("recipe", page(given.runs, costs, command, given.lesions, best_possible(lesions)))


def configured(name: str, *more: str) -> Config:
    """Make the configuration of a recipe."""
    return load_preset("v2-fast-tiny", [*BASE, *RECIPES[name], *more])


def known_costs(file: Path) -> dict[str, float]:
    """Measure once what a step of each recipe costs, relative to the plain one."""
    if not file.exists():
        seconds = step_seconds(list(RECIPES))
        seconds[ALONE] = (seconds[ALONE] + seconds["plain"]) / 2  # the steps that were timed are those alone
        relative = {name: FLAT.get(name, of / seconds["plain"]) for name, of in seconds.items()}
        file.write_text(json.dumps(relative))
    costs: dict[str, float] = json.loads(file.read_text())
    return costs


def step_seconds(names: list[str], *, rounds: int = 8) -> dict[str, float]:
    """Time steps in turn, in seconds of the processor, which other work does not disturb."""
    going: dict[str, tuple[Any, Any, list[float]]] = {}
    for name in names:
        about = ("data.channels=1", "data.task=binary", "data.classes=[lesion]")
        config = assumed(configured(name, *about))
        step = trainer_step(config, CPU)
        loader = training_loader(phantom_stream(config, step.network.stride), config.train, start=0, num_batches=12)
        going[name] = step, iter(loader), []
    for _ in range(rounds + 2):
        for step, batches, times in going.values():
            batch = as_batch(next(batches))
            start = process_time()
            step(batch)
            times.append(process_time() - start)
    return {name: median(times[2:]) for name, (_, _, times) in going.items()}


def trial(name: str, steps: int, seed: int, run: Path, lesions: list[Fresh]) -> dict[str, float]:
    """Train once, and score the ensembles of fresh lesions."""
    train("phantom", run, configured(name, f"train.max_steps={steps}", f"train.seed={seed}"))
    model, config = load_model(run, weights="last")
    sampling = config.sampling.model_copy(update={"members": MEMBERS, "batch_size": MEMBERS})
    sampler = EnsembleSampler(model, config, sampling, precision=config.train.precision)
    scored, parts = [], []
    for fresh in lesions:
        image = prepare(fresh.case, config, stride=model.stride).image[None]
        drawn = sampler.draw(image, [fresh.name], seed=0)
        scored.append(score(fresh.lesion, drawn, config))
        parts += shares(fresh.lesion, drawn.probability[:, 0, 0].numpy() >= 0.5)
    true, share = np.array(parts).T
    means = {key: float(np.mean([of[key] for of in scored])) for key in scored[0]}
    return means | {"slope": float(np.polyfit(true, share, 1)[0]), "steps": steps}


def score(lesion: Lesion, drawn: Ensemble, config: ResolvedConfig) -> dict[str, float]:
    """Score an ensemble against the law of the raters."""
    masks, weights = lesion.distribution()
    members, labels = drawn.probability[:, 0].cpu(), config.spec.labels
    assert drawn.anchor is not None
    anchor, expected = drawn.anchor[0], drawn.expected[0, 0].float()
    mixed = (anchor + expected) / 2
    votes = members[:, 0].numpy() >= 0.5
    fused = {kind: decide(members, labels, fusion=kind, marginal=mixed).mask for kind in ("majority", "staple", "dice")}
    single = fused | {"anchor": anchor[0].numpy() >= 0.5}
    found = {
        kind: float(overlaps(np.asarray(mask, bool)[None], masks)[0][0] @ weights) for kind, mask in single.items()
    }
    found["member"] = float((overlaps(votes, masks)[0] @ weights).mean())
    apart, among = 1 - overlaps(votes, masks)[1], 1 - overlaps(votes, votes)[1]
    raters = 1 - overlaps(masks, masks)[1]
    pairs = np.triu_indices(len(votes), 1)
    found["ged"] = float(2 * (apart @ weights).mean() - among[pairs].mean() - weights @ raters @ weights)
    share, near = lesion.probability(), binary_dilation(lesion.probability() > 0, iterations=NEAR)
    for kind, p in (("nll", mixed[0].numpy()), ("nll_anchor", anchor[0].numpy())):
        p = np.clip(p, 1e-6, 1 - 1e-6)
        found[kind] = float(-(share * np.log(p) + (1 - share) * np.log(1 - p))[near].mean())
    return found


def overlaps(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute Dice and IoU of every mask of one set with every one of another; the core is never empty."""
    rows, columns = (of.reshape(len(of), -1).astype(float) for of in (a, b))
    common, sizes = rows @ columns.T, rows.sum(1)[:, None] + columns.sum(1)[None]
    return 2 * common / sizes, common / (sizes - common)


def shares(lesion: Lesion, votes: np.ndarray) -> list[tuple[float, float]]:
    """Pair the share of raters that draw a part with the share of members that draw more than half of it."""
    parts = ((lesion.rim, lesion.p_rim), (lesion.satellite, lesion.p_satellite))
    return [(p, float((votes[:, part].mean(axis=1) > 0.5).mean())) for part, p in parts if part.sum() > 8]


def best_possible(lesions: list[Fresh]) -> float:
    """Find the expected Dice of the best masks there are, unions of the parts of each lesion."""
    best = []
    for fresh in lesions:
        masks, weights = fresh.lesion.distribution()
        best.append(float((overlaps(masks, masks)[0] @ weights).max()))
    return float(np.mean(best))


def page(runs: Path, costs: dict[str, float], command: str, lesions: int, best: float) -> list[str]:
    """Write the page."""
    rows = []
    for name in RECIPES:
        files = sorted(runs.glob(f"{name.replace(' ', '_')}-*.json"))
        if files:
            found = [json.loads(file.read_text()) for file in files]
            rows.append((name, f"{costs[name]:.2f}", str(found[0]["steps"]), str(len(files)), *_cells(found)))
    head = ("recipe", "cost of a step", "steps", "seeds", *NUMBERS.values())
    return [
        "# What the denoiser gains by its training",
        "",
        f"Command: `{command}` ({lesions} lesions).",
        "",
        WORDS,
        "",
        *table(head, rows),
        "",
        f"Best possible expected Dice: {100 * best:.1f}.",
    ]


def _cells(found: list[dict[str, float]]) -> list[str]:
    cells = []
    for key in NUMBERS:
        values = np.array([of[key] for of in found])
        scale, digits = (100, 1) if key in ("anchor", "majority", "staple", "dice", "member") else (1, 3)
        spread = f" ± {scale * values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
        cells.append(f"{scale * values.mean():.{digits}f}{spread}")
    return cells


if __name__ == "__main__":
    guard(main)
