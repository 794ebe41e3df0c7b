"""The demonstration: a trained model if one came along, then the whole path on the phantom, as a user would call it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from medsegdiff.config.load import load_preset
from medsegdiff.data.dataset import Track, no_progress
from medsegdiff.data.phantom import NUM_RATERS, PhantomSource, write_phantom
from medsegdiff.errors import ConfigError
from medsegdiff.evaluation import Evaluation, Measure, evaluate
from medsegdiff.hub.installed import Installed, installed_models
from medsegdiff.inference.files import segment_files
from medsegdiff.inference.inputs import find_inputs
from medsegdiff.inference.segmentation import Segmentation
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.io.atomic import write_text
from medsegdiff.metrics.distribution import expected_ged
from medsegdiff.metrics.pairs import dice_of, intersections
from medsegdiff.pictures.cases import case_grid, saved_rows
from medsegdiff.pictures.curves import save
from medsegdiff.report.html import Cell, Section, Table, mean_cell, number, write_report
from medsegdiff.training.run import Run
from medsegdiff.training.train import train

MARK = ".medsegdiff-demo"
"""Marks a folder as the demonstration's own, which it may empty."""
EXAMPLES = "examples"
"""Folder of a model that came along, with images/ and masks/ to try it on."""
MEMBERS = 10
RECIPE = (
    "data.image_size=64",
    "train.max_steps=500",
    "train.anchor_alone=0",  # raters differ much here, and time is short: the Diffusion Model takes all of it
    "train.val_every=125",
    "train.val_cases=24",
)


@dataclass(frozen=True)
class DemoResult:
    """Where the report is, and the Dice of its three rows."""

    report: Path
    fused: float
    member: float
    anchor: float


def run_demo(
    out: Path, *, seed: int = 0, steps: int | None = None, console: Console | None = None, track: Track = no_progress
) -> DemoResult:
    """Make data, train, segment, fuse, evaluate and report."""
    console = console or Console(quiet=True)
    make_room(out)
    overrides = [*RECIPE, f"train.seed={seed}", f"data.split_seed={seed}"]
    config = load_preset("v2-fast-tiny", overrides + ([f"train.max_steps={steps}"] if steps else []))
    data, run, segmented = out / "data", out / "run", out / "segmented"
    first = [show_trained(model, out, console=console, track=track) for model in _with_examples()[:1]]
    console.print(f"1/4 Drawing ambiguous lesions, each with the masks of five raters, into {data}", markup=False)
    write_phantom(PhantomSource(config.data), data)
    console.print(f"2/4 Training a small MedSegDiff-V2 for {config.train.max_steps} steps", markup=False)
    if train(data, run, config, console=console, track=track).reason == "interrupted":
        raise KeyboardInterrupt
    console.print(f"3/4 Segmenting the test images, {MEMBERS} members each", markup=False)
    files = find_inputs([data], split_file=run / "split.csv", split="test")
    segmenter = Segmenter.from_pretrained(run)
    segment_files(segmenter, files, segmented, save_members=True, track=track, members=MEMBERS, seed=seed)
    console.print("4/4 Scoring against the majority of the raters")
    scores = [evaluate(segmented / part, data, split="test") for part in (".", "members/00", "anchor")]
    for name, score in zip(("fused", "member", "anchor"), scores, strict=True):
        score.save(out / "scores" / name)
    fused, member, anchor = (score.mean("dice").mean for score in scores)
    perfect = perfect_sampler(PhantomSource(config.data), list(scores[0].scores.groups), members=MEMBERS)
    report = _write(out, scores[0], scores[1], scores[2], perfect, first=first)
    return DemoResult(report, fused, member, anchor)


def show_trained(model: Installed, out: Path, *, console: Console, track: Track = no_progress) -> Section:
    """Segment the examples of a model that came along, and say of each what a user would like to know."""
    console.print(f"First a trained model, {model.name} ({model.package}), on its own examples", markup=False)
    data, segmented, notes = model.folder / EXAMPLES, out / model.name, dict[str, str]()

    def heard(result: Segmentation) -> None:
        notes[result.name] = _told(result)
        console.print(f"  {result.name}: {notes[result.name]}", markup=False, highlight=False)

    segmenter = Segmenter.from_pretrained(model.folder)
    files = find_inputs([data], like=segmenter.config)
    segment_files(segmenter, files, segmented, save_members=True, track=track, heard=heard, overwrite=True)
    save(case_grid(saved_rows(segmented, data, notes)), out / f"{model.name}.png")
    console.print(f"  Masks: {segmented / 'masks'} · look at {segmented / 'overlay'}", markup=False)
    return Section(
        f"A trained model: {model.name}",
        "The examples that came along with it, with the masks of its members. Beside the name: size with its 90 % "
        "interval, and how usual mask and image are. What is known of the model: "
        f"'medsegdiff models show {model.name}'.",
        picture=out / f"{model.name}.png",
    )


def _with_examples() -> list[Installed]:
    """List models that have something to show."""
    return [model for model in installed_models() if (model.folder / EXAMPLES / "images").is_dir()]


def _told(result: Segmentation) -> str:
    """Write sizes with their intervals, and quality, of each structure."""
    told = []
    for name, size in result.sizes().items():
        quality = result.quality.get(name)
        dice = "" if quality is None or quality.predicted_dice is None else f", Dice about {quality.predicted_dice:.2f}"
        trust = "" if quality is None or quality.trust is None else f", trust {quality.trust:.2f}"
        told.append(f"{name} {size.mean:.0f} [{size.low:.0f}, {size.high:.0f}] {size.unit}{dice}{trust}")
    return "; ".join(told)


def perfect_sampler(source: PhantomSource, names: Sequence[str], *, members: int) -> dict[str, float]:
    """Work out what a sampler scores on average that draws masks just as the raters do."""
    known = [source.lesion(name).distribution() for name in names]
    ged = [expected_ged(masks, weights, num_samples=members, num_raters=NUM_RATERS) for masks, weights in known]
    agreement = [weights @ dice_of(intersections(masks, masks)) @ weights for masks, weights in known]
    return {"ged": float(np.mean(ged)), "agreement": float(np.mean(agreement))}


def make_room(out: Path) -> None:
    """Empty the folder of an earlier demonstration; touch nothing else."""
    if out.exists() and any(out.iterdir()):
        if not (out / MARK).exists():
            raise ConfigError(f"{out} holds something that is not a demonstration. Choose another --out.")
        shutil.rmtree(out)
    write_text(out / MARK, "This folder is replaced by the next 'medsegdiff demo'.\n")


def _write(
    out: Path,
    fused: Evaluation,
    member: Evaluation,
    anchor: Evaluation,
    perfect: Mapping[str, float],
    *,
    first: Sequence[Section],
) -> Path:
    """Write the report."""
    names = list(fused.scores.groups)
    notes = {name: f"Dice {fused.scores.value(name, 'dice'):.3f}" for name in names[:: max(1, len(names) // 8)][:8]}
    save(case_grid(saved_rows(out / "segmented", out / "data", notes)), out / "cases.png")
    sections = [
        *first,
        Section(
            "Scores",
            f"Mean over {len(names)} test images with 95 % bootstrap intervals; the reference is the majority "
            "of five raters. The anchor is the Condition Model's own mask, without diffusion.",
            tables=[_scores(fused, member, anchor)],
        ),
        Section(
            "Test images",
            "Each image has a core that all raters draw, and a rim and a satellite that only some draw; in the "
            "reference, grey is the share of raters. Members differ where raters do, and the uncertainty map shows it.",
            picture=out / "cases.png",
        ),
        Section(
            "Uncertainty",
            f"Against the five raters of each image. How raters draw the phantom is known exactly, so it is known too "
            f"what {MEMBERS} members score on average that are drawn just as the raters draw: the row of the perfect "
            "sampler. The anchor counts as an ensemble of one. Lower GED², ECE and log score are better; agreement is "
            "best where it equals the perfect sampler's. The probability is the calibrated mix of anchor and members; "
            "the last column tells in how many images the 90 % interval of the area holds that of the reference.",
            tables=[_uncertainty(fused, anchor, perfect)],
        ),
        Section("Training", "Loss, and Dice of validation images by sampling.", picture=Run(out / "run").curves),
        Section(
            "With your own images",
            "A folder with images/ and masks/ (the same names, PNG, JPEG or TIFF) is all it takes.",
            code="medsegdiff data check DATA\nmedsegdiff train DATA --out RUN\n"
            "medsegdiff segment DATA --split test --model RUN --out MASKS\nmedsegdiff evaluate MASKS DATA --split test",
        ),
    ]
    write_report(out / "report.html", "medsegdiff: the demonstration", sections)
    return out / "report.html"


def _scores(fused: Evaluation, member: Evaluation, anchor: Evaluation) -> Table:
    columns = {"Dice": "dice", "IoU": "iou", "HD95 (px)": "hd95"}
    named = {f"fused mask (largest expected Dice of {MEMBERS} members)": fused, "one member": member, "anchor": anchor}
    return Table([Cell(""), *map(Cell, columns)], [_row(name, of, columns.values()) for name, of in named.items()])


def _uncertainty(fused: Evaluation, anchor: Evaluation, perfect: Mapping[str, float]) -> Table:
    columns = {
        "GED²": "ged",
        "agreement": "agreement",
        "ECE near the lesion": "ece_near",
        "log score near": "nll_near",
        "area held": "size_covered",
    }
    ideal = (number(perfect.get(metric, float("nan")), metric) for metric in columns.values())
    rows = [
        _row(f"{MEMBERS} members", fused, columns.values()),
        [Cell("perfect sampler, expected"), *map(Cell, ideal)],
        _row("anchor", anchor, columns.values()),
    ]
    return Table([Cell(""), *map(Cell, columns)], rows)


def _row(name: str, score: Evaluation, metrics: Iterable[str]) -> list[Cell]:
    return [Cell(name), *(mean_cell(score.summary.get(Measure(metric)), metric) for metric in metrics)]
