"""Which cases must a human see? Scores without references, what they predict, and which promises are kept.

python benchmarks/quality.py RUN=DATA RUN=DATA … --other IMAGES
python benchmarks/quality.py --phantom 5

Every run segments the test part of its data. Scores are compared on all of it; what calibration learns is judged on
random parts: some patients calibrate, at most half of them, the others are new. Each run leaves a small file in
``benchmarks/quality/``, and the page is written from those that there are; with ``--other``, images of something else,
spoilt images are mixed with clean ones too. ``--phantom`` trains on lesions that are made for it, of which there are so
many that those not seen tell the risk itself.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import process_time

import numpy as np
from common import HERE, Trial, table, write_page
from earn_plan import DATASETS, SYSTEMS, config_of, phantom_source
from quality_spoilt import BLUR, CASES, NOISE, TOLD, TURNED, spoilt_auroc

from medsegdiff.cli import guard
from medsegdiff.cli.console import track
from medsegdiff.data.phantom import write_phantom
from medsegdiff.evaluation import evaluate
from medsegdiff.evaluation.scores import Scores
from medsegdiff.inference import RECORD
from medsegdiff.inference.files import segment_files
from medsegdiff.inference.inputs import find_inputs
from medsegdiff.inference.record import ImageRecord, read_record
from medsegdiff.inference.scores import SCORES
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.metrics.acceptance import choose
from medsegdiff.metrics.failures import aurc_of_cases, by_chance
from medsegdiff.metrics.predicted_dice import bound_of, cross_fitted, fit_dice_map, fit_margin
from medsegdiff.metrics.selective import spearman
from medsegdiff.models.checkpoint import load_config

SPLITS, RISK = 200, 0.1
MOST = 200
"""Patients that calibrate, at most."""
FRESH = 3000
"""Lesions of the phantom to segment."""
GOOD_QUANTILE = 0.15
"""Dice below that of so many cases counts as bad: data sets differ in how hard they are."""
COMMAND = """Command: `python benchmarks/quality.py RUN=DATA … --other IMAGES`, once for each data set, with runs of V2
as `earn.py` leaves them in `runs/earn` (vessels and CT: seed 2; left ventricle: seed 9; skin lesions: 8 minutes,
seed 0) and images of another organ; and `--phantom 5`. Without runs it writes this page anew from `quality/*.json`."""
WORDS = f"""AURC is the mean 1 − Dice of the cases kept, over all numbers of cases kept, the surest first; ρ is the rank
correlation with Dice. {SPLITS} times patients are drawn at random to calibrate, half of them and at most {MOST}.
*Coverage*: how often a new case has at least the bound that calibration gives it (0.9 is meant). *Promise broken*: how
often a threshold was found and yet more than {RISK:.0%} of the accepted new patients had a bad mask. One time in ten
it may, of new patients without number; where the new ones are as few as those that calibrated, their own chance adds
to it: a promise that is kept exactly is then seen broken nearly one time in five. Of the phantom there are many
({FRESH:,} lesions): its row tells the promise. Bad is a Dice that 85 % of the cases exceed. *Size within
interval*: how often the 90 % interval of area that the run states, which validation cases have calibrated, holds that
of the reference, over images and (in brackets) the patient with the least."""
SPOILT_WORDS = f"""AUROC: how often a clean test image is trusted more than a spoilt one; at most {CASES} of each. The
run was calibrated on its validation cases, as `medsegdiff calibrate` does. *Trust* is what `segment` sorts by: it joins
the score of the mask with how far the image lies from those of training; both alone stand beside it. Blur has a
standard deviation of 1/{1 / BLUR:.0f} of the side, noise of {NOISE}; the wrong window cuts values below .35 and above
.6. Upside down is no fault where training turned images too."""


@dataclass(frozen=True)
class Known:
    """A structure of a data set: Dice, scores and patient of each case, and whether its interval held the size."""

    name: str
    dice: np.ndarray
    scores: dict[str, np.ndarray]
    patients: list[str]
    covered: np.ndarray


def main() -> None:
    """Segment what is missing, and write the page."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("runs", nargs="*", help="RUN=DATA; none: the page alone.")
    asked.add_argument("--phantom", type=float, metavar="MINUTES", help="Train on the phantom too, for so long.")
    asked.add_argument("--other", type=Path, help="Images of something else, among spoilt ones.")
    asked.add_argument("--out", type=Path, default=Path("runs/quality"), help="Where masks go.")
    asked.add_argument("--kept", type=Path, default=HERE / "quality", help="Where files of the runs are kept.")
    given = asked.parse_args()
    given.kept.mkdir(parents=True, exist_ok=True)
    pairs = [tuple(map(Path, text.split("=", 1))) for text in given.runs]
    if given.phantom is not None:
        pairs.append(phantom(given.phantom, given.out))
    for run, data in pairs:
        keep(given.kept / f"{run.name}.json", measured(run, data, given.out))
        if given.other is not None:
            found = spoilt_auroc(run, data, given.other, given.out / "calibrated")
            (given.kept / f"{run.name}_spoilt.json").write_text(json.dumps(found, indent=1) + "\n")
    write_page("quality", page(given.kept), folder=HERE)


def phantom(minutes: float, out: Path) -> tuple[Path, Path]:
    """Train on the phantom as `earn.py` does, with more lesions to test: give run and data."""
    data = out / "data_phantom"
    if not (data / "split.csv").exists():  # it is written last
        write_phantom(phantom_source(tests=FRESH), data)
    trial = Trial(f"phantom_{minutes:g}min", data, out)
    trial.learn(config_of(SYSTEMS["v2"], DATASETS["phantom"], minutes=minutes, seed=0), clock=process_time)
    return trial.run, data


def keep(file: Path, known: Sequence[Known]) -> None:
    """Write what is known of a run."""
    rounded = [{name: _listed(value) for name, value in asdict(of).items()} for of in known]
    file.write_text("[\n" + ",\n".join(map(json.dumps, rounded)) + "\n]\n")


def _listed(value: object) -> object:
    if isinstance(value, np.ndarray):
        return [None if np.isnan(of) else round(float(of), 5) for of in value]
    return {name: _listed(of) for name, of in value.items()} if isinstance(value, dict) else value


def read(file: Path) -> list[Known]:
    """Read what `keep` wrote."""
    return [
        Known(
            name=of["name"],
            dice=np.array(of["dice"], float),
            scores={name: np.array(values, float) for name, values in of["scores"].items()},
            patients=of["patients"],
            covered=np.array(of["covered"], float),
        )
        for of in json.loads(file.read_text())
    ]


def page(kept: Path) -> list[str]:
    """Write the page of all runs that there are."""
    spoilt = sorted(kept.glob("*_spoilt.json"))
    known = [of for file in sorted(set(kept.glob("*.json")) - set(spoilt)) for of in read(file)]
    lines = ["# Which cases must a human see?", "", COMMAND]
    lines += ["", WORDS, "", "## How well scores rank cases: AURC (ρ)", "", *ranks(known)]
    lines += ["", "## What is promised", "", *promises(known)]
    if spoilt:
        found = {file.stem.removesuffix("_spoilt"): json.loads(file.read_text()) for file in spoilt}
        lines += ["", "## Images that are spoilt: AUROC of trust (of the score alone, of the look alone)", ""]
        lines += [SPOILT_WORDS, "", *spoilt_table(found)]
    return lines


def spoilt_table(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[str]:
    """Lay out how often clean images are trusted more than spoilt ones."""
    kinds = list(dict.fromkeys(kind for of in found.values() for kind in of))
    rows = [(kind, *(_aurocs(of[kind]) for of in found.values())) for kind in kinds]
    for what, left_out in (("mean", ()), (f"mean but {TURNED}", (TURNED,))):
        kept = [[kind for kind in of if kind not in left_out] for of in found.values()]
        pairs = zip(found.values(), kept, strict=True)
        means = [{name: float(np.mean([of[kind][name] for kind in own])) for name in TOLD} for of, own in pairs]
        rows.append((what, *map(_aurocs, means)))
    return table(("", *map(_called, found)), rows)


def _aurocs(of: Mapping[str, float]) -> str:
    first, *others = (f"{of[name]:.2f}" for name in TOLD)
    return f"{first} ({', '.join(others)})"


def measured(run: Path, data: Path, out: Path) -> list[Known]:
    """Segment the test cases of a run once, and line up what is known of each."""
    place, config = out / run.name, load_config(run)
    if not (place / RECORD).is_file():
        files = find_inputs([data], like=config, split_file=run / "split.csv", split="test")
        segmenter = Segmenter.from_pretrained(run, device="cpu")
        segment_files(segmenter, files, place, parts=("masks", "labels"), split_file=run / "split.csv", track=track)
    found = evaluate(place, data, split="test", present_only=True, data=config.data, track=track).scores
    images = {image.name: image for image in read_record(place / RECORD).images}
    structures = config.spec.labels.structures
    return [_of(run.name, name, found, images, alone=len(structures) == 1) for name in structures]


def _of(run: str, structure: str, found: Scores, images: Mapping[str, ImageRecord], *, alone: bool) -> Known:
    part = "" if alone else structure
    cases = [name for name in found.groups if not np.isnan(found.value(name, "dice", part))]
    dice, covered = (np.array([found.value(name, of, part) for name in cases]) for of in ("dice", "size_covered"))
    told = [images[name].scores[structure] for name in cases]
    scores = {name: np.array([of[name] for of in told]) for name in SCORES if all(name in of for of in told)}
    return Known(run if alone else f"{run}: {structure}", dice, scores, [found.groups[name] for name in cases], covered)


def ranks(known: Sequence[Known]) -> list[str]:
    """Lay out how well each score ranks the cases."""
    rows = []
    for name in SCORES:
        cells = []
        for of in known:
            if name in of.scores:
                score = of.scores[name]
                cells.append(f"{aurc_of_cases(1 - score, 1 - of.dice):.4f} ({spearman(score, of.dice):.2f})")
            else:
                cells.append("–")
        rows.append((f"{name}: {SCORES[name]}", *cells))
    rows.append(("any order", *(f"{by_chance(1 - of.dice)['aurc']:.4f}" for of in known)))
    rows.append(("the best order", *(f"{aurc_of_cases(1 - of.dice, 1 - of.dice):.4f}" for of in known)))
    return table(("score", *(_called(of.name) for of in known)), rows)


def _called(name: str) -> str:
    """Name a column after its data and structure, not after the run."""
    return re.sub(r"(_v2)?_[\d.]+min(_\d+)?", "", name)


def promises(known: Sequence[Known]) -> list[str]:
    """Lay out how often bounds and promises hold for patients that calibration has not seen."""
    rows = [
        (_called(of.name), str(len(of.dice)), str(len(set(_units(of)))), *_halves(of), _covered(of)) for of in known
    ]
    head = (
        "data",
        "cases",
        "patients",
        "mean error of Dice",
        "coverage",
        "threshold found",
        "promise broken",
        "accepted",
        "size within interval",
    )
    return table(head, rows)


def _covered(of: Known) -> str:
    units = np.array(_units(of))
    least = min(float(np.nanmean(of.covered[units == unit])) for unit in np.unique(units))
    return f"{np.nanmean(of.covered):.2f}" + (f" ({least:.2f})" if any(of.patients) else "")


def _units(of: Known) -> list[str]:
    return [patient or f"\0{number}" for number, patient in enumerate(of.patients)]


def _halves(of: Known) -> list[str]:
    units = np.array(_units(of))
    names, good = np.unique(units), float(np.quantile(of.dice, GOOD_QUANTILE))
    errors, held, found, broken, kept = [], [], 0, 0, []
    for seed in range(SPLITS):
        half = np.random.default_rng(seed).permutation(names)[: min(len(names) // 2, MOST)]
        old = np.isin(units, half)
        groups = units[old].tolist()
        known = {name: values[old] for name, values in of.scores.items()}
        best, accepted = choose(known, of.dice[old], groups, good=good, risk=RISK)
        score, dice = of.scores[best], of.dice
        learned = fit_dice_map(score[old], dice[old], groups)
        margin = fit_margin(cross_fitted(score[old], dice[old], groups), dice[old], groups)
        predicted = learned(score[~old])
        errors.append(np.abs(predicted - dice[~old]).mean())
        held.append((dice[~old] >= bound_of(predicted, margin)).mean())
        if accepted is not None:
            passed = ~old & (score >= accepted.threshold)
            found += 1
            kept.append(passed.sum() / (~old).sum())
            broken += bool(len(set(units[passed & (dice < good)])) > RISK * max(len(set(units[passed])), 1))
    share = f"{np.mean(kept):.2f}" if kept else "–"
    return [f"{np.mean(errors):.3f}", f"{np.mean(held):.3f}", f"{found / SPLITS:.2f}", f"{broken / SPLITS:.2f}", share]


if __name__ == "__main__":
    guard(main)
