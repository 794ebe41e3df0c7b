"""Make heart-lv and heart-lv-once: train small, then large, in rounds; distil, round, calibrate, score, write cards.

Run again, it goes on where it was. ``--minutes 75 80`` trains two rounds; with ``--begun`` the first is taken from the
folder of what it had made, as ``models/medsegdiff_models/heart-lv`` of then.

The data: folder with images/, masks/ and split.csv (id, split, patient), patients named SC-HF-I-01, SC-HYP-03 …
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median_low
from typing import Any

from medsegdiff.cli.console import people, track
from medsegdiff.config.run import Config
from medsegdiff.evaluation import Evaluation, Measure, evaluate
from medsegdiff.inference.files import segment_files
from medsegdiff.inference.inputs import find_inputs
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.models.checkpoint import BEST
from medsegdiff.sharing.card import About
from medsegdiff.sharing.pack import pack
from medsegdiff.training.plan import config_for
from medsegdiff.training.quality import calibrate_quality
from medsegdiff.training.run import Run
from medsegdiff.training.train import train

HERE = Path(__file__).resolve().parent
SHIPPED = HERE.parent / "medsegdiff_models"
MOST = 12_000_000
"""Bytes that the weights of a model may have."""
PACKED: dict[str, Any] = {
    "precision": "int8",
    "license_file": HERE / "LICENSE",
    "with_split": True,
    "overwrite": True,
}
"""How models are packed."""
STRUCTURE = "data.classes=[left ventricle]"
RECIPE = (
    STRUCTURE,
    "model.condition_patch=2",
    "model.condition_widths=[32, 64, 128, 160, 160]",
    "model.diffusion_widths=[32, 64, 128, 128]",
    "model.ss_former_dim=128",
    "model.time_dim=128",
    "train.draws=2",
    "train.batch_size=8",
    "train.learning_rate=1e-3",
    "train.val_cases=73",
    "train.save_every=250",
    "train.num_workers=0",
    "sampling.views=4",
)
"""Changes of the preset v2-fast: patches of 2×2 and fewer channels, so that a processor core can train it."""
SMALL = ("data.image_size=96", "train.val_every=1000000000")
"""Of the first third of the time, where a step costs a quarter."""
LARGE = (
    STRUCTURE,
    "data.image_size=192",
    "train.anchor_alone=0.25",
    "train.learning_rate=7e-4",
    "train.val_every=500",
)
"""Of the rest, which begins with those weights, and of further rounds."""
TRIAL = (
    "data.image_size=64",
    "model.condition_widths=[8, 8, 8, 16, 16]",
    "model.diffusion_widths=[8, 8, 16, 16]",
    "model.ss_former_dim=16",
    "model.time_dim=16",
    "model.filter_channels=8",
    "train.max_steps=20",
    "train.val_every=10",
    "train.val_cases=4",
    "train.val_steps=2",
    "sampling.members=4",
    "sampling.views=1",
)
PATHOLOGY = {
    "HF-I": "heart failure with infarction",
    "HF-NI": "heart failure without infarction",
    "HYP": "hypertrophy",
    "N": "healthy",
}
FRAMES, PHASES = 20, 2
"""Of a heartbeat; those that were drawn: the end of diastole and of systole."""
DISPLACED = "SC-N-06"
"""Patient whose published contours lie about 10 pixels left of his ventricle, as ``medsegdiff data check`` says."""
DATA = (
    "Sunnybrook Cardiac Data (Radau et al. 2009, MICCAI challenge on left ventricle segmentation; cardiacatlas.org), "
    "parts 1 and 2: 526 short-axis cine MR slices of 30 patients, as 8-bit pictures of 256×256"
)
USE = (
    "The blood pool of the left ventricle in short-axis cine MR, slice by slice: areas with an interval, for research "
    "and for trying medsegdiff. Not for other views, late enhancement, or children; not for images of other contrast. "
    "All images are of one centre, and have no spacing: areas are in pixels."
)


@dataclass(frozen=True)
class Job:
    """What is made, of what, where."""

    data: Path
    work: Path
    shipped: Path
    trial: Sequence[str]
    """Changes of the recipe, last of all."""
    minutes: Sequence[float | None]
    """Of each round."""
    begun: Path | None = None
    """What the first round had made, packed, where it is at hand."""

    @property
    def small(self) -> Path:
        """The run on small images, with which that begins."""
        return self.work / "run-small"

    def round(self, number: int) -> Path:
        """The run of a round; they count from 1."""
        return self.work / ("run" if number == 1 else f"run-{number}")

    @property
    def run(self) -> Path:
        """The trained run, of the last round."""
        return self.round(len(self.minutes))

    @property
    def once(self) -> Path:
        """Its twin that samples in one step."""
        return self.work / "run-once"


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what is not done yet."""
    job = asked(arguments)
    job.work.mkdir(parents=True, exist_ok=True)
    trained(job)
    distilled(job)
    for run, name in ((job.run, "heart-lv"), (job.once, "heart-lv-once")):
        ship(job, run, name)


def asked(arguments: Sequence[str] | None) -> Job:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/heart_lv"))
    parser.add_argument("--work", type=Path, default=Path("runs/heart-lv"), help="Runs, segmentations and scores.")
    told = "Of training, in each round; the twin takes a quarter of the last one's."
    parser.add_argument("--minutes", type=float, nargs="+", default=[75.0, 80.0], help=told)
    parser.add_argument("--begun", type=Path, help="What the first round had made: begins with the second.")
    parser.add_argument("--try", action="store_true", dest="trial", help="A minute on few slices, into --work alone.")
    given = parser.parse_args(arguments)
    if not (given.data / "split.csv").is_file():
        sys.exit(f"{given.data}: there is no split.csv. Give the folder of the data: --data FOLDER.")
    if given.begun is not None and len(given.minutes) < 2:
        sys.exit(f"--begun {given.begun} stands for the first round: --minutes has to name two or more.")
    if not given.trial:
        return Job(given.data, given.work, SHIPPED, (), given.minutes, given.begun)
    data = few(given.data, given.work / "data")
    return Job(data, given.work, given.work / "shipped", TRIAL, [None] * len(given.minutes), given.begun)


def few(data: Path, out: Path) -> Path:
    """Copy every sixth slice, at both its phases."""
    if out.is_dir():
        return out
    with (data / "split.csv").open(newline="", encoding="utf-8") as file:
        all_rows = list(csv.DictReader(file))
    slices = sorted({(row["patient"], slice_of(row["id"])) for row in all_rows})[::6]
    rows = [row for row in all_rows if (row["patient"], slice_of(row["id"])) in slices]
    for row in rows:
        for part in ("images", "masks"):
            for path in (data / part).rglob(f"{row['id']}.*"):
                target = out / path.relative_to(data)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
    with (out / "split.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return out


def trained(job: Job) -> None:
    """Train round by round, or go on: each begins with the rounded weights of the one before."""
    begun = job.begun or first_round(job)
    for number, minutes in enumerate(job.minutes[1:], start=2):
        _train_large(job, job.round(number), start=begun, minutes=minutes)
        begun = rounded(job, job.round(number))


def first_round(job: Job) -> Path:
    """Train on small images, then on large ones."""
    small, large = (None if job.minutes[0] is None else job.minutes[0] * share for share in (1 / 3, 2 / 3))
    changes = (*RECIPE, *SMALL, *job.trial)
    _train(job, job.small, config_for(job.small, preset="v2-fast", changes=changes, minutes=small), minutes=small)
    _train_large(job, job.round(1), start=job.small, minutes=large)
    return rounded(job, job.round(1))


def _train_large(job: Job, out: Path, *, start: Path, minutes: float | None) -> None:
    config = config_for(out, start=start, changes=(*LARGE, *job.trial), minutes=minutes)
    _train(job, out, config, minutes=minutes, start=start)


def rounded(job: Job, run: Path) -> Path:
    """Pack a run with its weights as they are shipped."""
    out = job.work / f"{run.name}-rounded"
    pack(run, out, About("heart-lv", "CC0-1.0"), **PACKED)
    return out


def distilled(job: Job) -> None:
    """Teach its twin to make in one step what the run makes in two, in a quarter of the time."""
    minutes = None if job.minutes[-1] is None else job.minutes[-1] / 4
    config = config_for(job.once, start=job.run, distill=True, changes=[STRUCTURE], minutes=minutes)
    _train(job, job.once, config, minutes=minutes, start=job.run)


def _train(job: Job, out: Path, config: Config, *, minutes: float | None, start: Path | None = None) -> None:
    resume = Run(out).state.exists()
    if resume:
        config, start = config_for(out, resume=True, minutes=minutes), None
    done = train(job.data, out, config, resume=resume, start=start, device="cpu", console=people, track=track)
    if done.reason == "interrupted":
        sys.exit(f"Interrupted at step {done.step}; the same command goes on.")


def ship(job: Job, run: Path, name: str) -> None:
    """Round the weights of a run; calibrate, segment and score with these; pack them with what was found."""
    about = About(name, "CC0-1.0", data=DATA, data_license="CC0 1.0, including its derivatives", use=USE)
    packed = job.work / name
    pack(run, packed, about, **PACKED)
    calibrate_quality([packed], job.data, split="val", device="cpu", track=track, noted=people.print)
    segmenter = Segmenter.from_pretrained(packed, device="cpu")
    files = find_inputs([job.data], like=segmenter.config, split_file=packed / "split.csv", split="test")
    masks, scores = job.work / f"{name}-test", job.work / f"{name}-scores"
    parts = ("masks", "members", "probability", "uncertainty", "anchor")
    split = packed / "split.csv"
    done = segment_files(segmenter, files, masks, parts=parts, split_file=split, overwrite=True, track=track)
    found = evaluate(masks, job.data, split="test", track=track)
    found.save(scores)
    told = About(**{**vars(about), "notes": notes(found, seconds=done.seconds / max(1, done.made))})
    out = job.shipped / name
    written = pack(packed, out, told, scores=scores, **PACKED)
    if written.bytes[BEST] > MOST:
        shutil.rmtree(out)
        sys.exit(f"The weights have {written.bytes[BEST]} bytes, of {MOST} that they may have. Narrow RECIPE.")
    examples(found, job.data, out / "examples")
    people.print(f"{name}: Dice {found.shown('dice')}, {written.bytes[BEST] / 1e6:.1f} MB in {out}")


def notes(found: Evaluation, *, seconds: float) -> str:
    """Write what is particular to these data: numbers by pathology, how quality ranks new patients, the time."""
    rows = "\n".join(by_pathology(found))
    lines = [
        "## By pathology",
        f"| test patients | patients | slices | Dice: mean over patients (least – most) | size in its interval |\n"
        f"|---|---|---|---|---|\n{rows}",
        "Two patients, or one, are few: these numbers tell where to look, and not how good the model is.",
        *in_place(found),
        "## Does the score find bad masks of new patients?",
        ranking(found),
        f"## Time\n\n{seconds:.2f} s for a slice with all its members on a processor, on the machine that made this.",
    ]
    return "\n\n".join(lines)


def by_pathology(found: Evaluation) -> list[str]:
    """Make a row for each pathology, which the names of patients tell."""
    dice, covered = (found.scores.columns.get(Measure(name), {}) for name in ("dice", "size_covered"))
    rows = []
    for code, words in PATHOLOGY.items():
        cases = [case for case, group in found.scores.groups.items() if code_of(group or case) == code]
        patients = sorted({found.scores.groups[case] for case in cases})
        means = [mean(dice[case] for case in cases if found.scores.groups[case] == patient) for patient in patients]
        held = [covered[case] for case in cases if case in covered]
        if means:
            share = f"{mean(held):.2f} of {len(held)}" if held else "–"
            span = f"{mean(means):.3f} ({min(means):.3f} – {max(means):.3f})"
            rows.append(f"| {words} | {len(patients)} | {len(cases)} | {span} | {share} |")
    return rows


def in_place(found: Evaluation) -> list[str]:
    """Say what Dice is without the patient whose reference lies elsewhere, where he is among them."""
    groups, dice = found.scores.groups, found.scores.columns.get(Measure("dice"), {})
    own: dict[str, list[float]] = {}
    for case, value in dice.items():
        own.setdefault(groups[case], []).append(value)
    if DISPLACED not in own or len(own) < 2:
        return []
    others = [mean(values) for patient, values in own.items() if patient != DISPLACED]
    return [
        "## One reference is displaced",
        f"In the published data the contours of {DISPLACED} lie about 10 of 256 pixels beside his ventricle: no right "
        f"mask scores well there. His mean Dice is {mean(own[DISPLACED]):.3f}; that of the other {len(others)} "
        f"patients is {mean(others):.3f}. All other numbers of this card hold him.",
    ]


def code_of(patient: str) -> str:
    """Read the pathology in the name of a patient: SC-HF-I-04 is HF-I."""
    return patient.removeprefix("SC-").rpartition("-")[0]


def ranking(found: Evaluation) -> str:
    """Say how well scores without a reference sort the test slices by their Dice."""
    known = {name: of for name, of in found.failure.items() if "aurc" in of}
    if not known:
        return "Not computed: the scores were not at hand."
    rows = "\n".join(f"| {name} | {of['aurc']:.4f} |" for name, of in sorted(known.items(), key=lambda x: x[1]["aurc"]))
    return (
        f"Mean 1 − Dice of the slices kept, over all numbers of slices kept (AURC, lower is better), on "
        f"{len(found.scores.groups)} test slices:\n\n| sorted by | AURC |\n|---|---|\n{rows}"
    )


def examples(found: Evaluation, data: Path, out: Path) -> None:
    """Let a slice of each test patient ride along, of median Dice, at both its phases, with the references."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    dice, slices = found.scores.columns[Measure("dice")], dict[str, dict[int, list[str]]]()
    for case, patient in found.scores.groups.items():
        slices.setdefault(patient, {}).setdefault(slice_of(case), []).append(case)
    chosen = dict[str, list[str]]()
    for patient in sorted(slices.keys() - {DISPLACED}):
        whole = [cases for cases in slices[patient].values() if len(cases) == PHASES]
        worth = [mean(dice.get(case, 0.0) for case in cases) for cases in whole]
        chosen[patient] = sorted(whole[worth.index(median_low(worth))]) if whole else []
    for part in ("images", "masks"):
        for case in (case for cases in chosen.values() for case in cases):
            for path in (data / part).rglob(f"{case}.*"):
                target = out / path.relative_to(data)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
    (out / "patients.json").write_text(json.dumps(chosen, indent=2) + "\n", encoding="utf-8")


def slice_of(case: str) -> int:
    """Tell to which slice a frame belongs: the frames of a patient are numbered slice by slice, from 1."""
    return (int(case.rpartition("_")[2]) - 1) // FRAMES


if __name__ == "__main__":
    main()
