"""Table 4 for data of one's own: each row is trained for the same time, with several seeds, scored, and laid out."""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.console import Console
from scipy.stats import t as student

from medsegdiff.data.dataset import Track, no_progress
from medsegdiff.errors import DataError, TrainingError
from medsegdiff.evaluation import Measure, evaluate
from medsegdiff.evaluation.results import read_results
from medsegdiff.inference.files import segment_files
from medsegdiff.inference.inputs import find_inputs
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.io.atomic import write_json, write_text
from medsegdiff.paper.ablation_plan import NOTES, AblationPlan, Variant
from medsegdiff.paper.formats import as_csv, as_markdown
from medsegdiff.paper.layout import Printed, lay_out
from medsegdiff.paper.results import Ours, Result, Score, gather
from medsegdiff.paper.tables import Column, PaperTable, load_table
from medsegdiff.training.run import Run
from medsegdiff.training.train import train

log = logging.getLogger(__name__)

DONE = "done.json"
"""In the folder of a run that is finished: steps and seconds."""
RUN, MASKS, SCORES, ANCHOR = "run", "masks", "scores", "anchor"
FUSED, ANCHORED, STEPS = "Dice", "Dice of the anchor", "steps"
OWN = {"GED": "ged", "agreement": "agreement"}
"""Column → metric, in per cent, where there is such a score."""


@dataclass(frozen=True)
class Job:
    """One run: a row and a seed."""

    variant: Variant
    seed: int
    folder: Path

    @property
    def done(self) -> bool:
        """Whether it is trained, segmented and scored."""
        return (self.folder / DONE).is_file()

    def facts(self) -> dict[str, Any]:
        """Read what it took."""
        told: dict[str, Any] = json.loads((self.folder / DONE).read_text(encoding="utf-8"))
        return told


def jobs_of(out: Path, variants: Sequence[Variant], seeds: int) -> list[Job]:
    """List the runs: a seed of all rows, then the next, so that what is there early can be compared."""
    return [
        Job(variant, seed, out / "runs" / variant.name.replace(" ", "-") / f"seed-{seed}")
        for seed in range(seeds)
        for variant in variants
    ]


def ablate(
    plan: AblationPlan,
    variants: Sequence[Variant],
    out: Path,
    *,
    device: str | None = None,
    console: Console | None = None,
    track: Track = no_progress,
) -> dict[str, str]:
    """Make all runs that are not finished; called again, it goes on where it stopped."""
    console = console or Console(quiet=True)
    for variant in variants:
        plan.config(variant)  # what can't be built shows before the work
    plan.claim(out)
    data, jobs, failed = plan.folder(out), jobs_of(out, variants, plan.seeds), dict[str, str]()
    for number, job in enumerate(jobs, start=1):
        if job.done:
            continue
        left = f"about {minutes_left(jobs, plan):.0f} min left"
        told = f"Run {number} of {len(jobs)}: {job.variant.name}, seed {job.seed}; {left}"
        console.print(told, highlight=False, markup=False)
        try:
            perform(job, plan, data, device=device, console=console, track=track)
        except TrainingError as error:
            log.warning("%s", error)
            failed[f"{job.variant.name}, seed {job.seed}"] = str(error)
    return failed


def minutes_left(jobs: Sequence[Job], plan: AblationPlan) -> float:
    """Estimate how long the runs will take that are not finished."""
    took = [job.facts()["seconds"] / 60 for job in jobs if job.done]
    return (mean(took) if took else plan.minutes) * sum(not job.done for job in jobs)


def perform(
    job: Job, plan: AblationPlan, data: Path, *, device: str | None, console: Console, track: Track = no_progress
) -> None:
    """Train, segment the test part, score it, and write down that this is done."""
    start, run = time.monotonic(), Run(job.folder / RUN)
    config = plan.config(job.variant, job.seed)
    resume = run.state.is_file()
    outcome = train(data, run.folder, config, resume=resume, device=device, console=console, track=track)
    if outcome.reason == "interrupted":
        raise KeyboardInterrupt
    segmenter = Segmenter.from_pretrained(run.folder, device=device)
    files = find_inputs([data], like=segmenter.config, split_file=run.split, split="test")
    masks = job.folder / MASKS
    finished = segment_files(
        segmenter,
        files,
        masks,
        save_members=True,
        split_file=run.split,
        overwrite=True,
        track=track,
        members=plan.members,
        steps=plan.steps,
        seed=job.seed,
    )
    if finished.failed:
        raise DataError(next(iter(finished.failed.values())))
    _score(job, data, plan, track=track)
    shutil.rmtree(masks / "members", ignore_errors=True)  # of volumes they are large, and their scores are there
    write_json(job.folder / DONE, {"steps": outcome.step, "seconds": time.monotonic() - start})


def _score(job: Job, data: Path, plan: AblationPlan, *, track: Track = no_progress) -> None:
    """Score the fused masks with their members, and the anchor's."""
    reading = plan.config(job.variant).data
    masks, scores = job.folder / MASKS, job.folder / SCORES
    evaluate(masks, data, split="test", data=reading, track=track).save(scores)
    evaluate(masks / ANCHOR, data, present_only=True, data=reading, track=track).save(scores / ANCHOR)


@dataclass(frozen=True)
class AblationResults:
    """What a reproduction found."""

    plan: AblationPlan
    table: PaperTable
    """With columns of our own."""
    rows: tuple[Ours, ...]
    runs: Mapping[str, Mapping[int, Mapping[str, float]]]
    """By row and seed: the numbers, by title of the column."""

    @property
    def printed(self) -> Printed:
        """Our rows below the paper's."""
        return lay_out(self.table, self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain values."""
        return {
            "table": self.table.name,
            "plan": asdict(self.plan),
            "rows": {
                row.name: {
                    "paper": {} if (paper := self.table.row(row.name)) is None else dict(paper.cells),
                    "ours": {title: asdict(score) for title, score in row.scores.items()},
                    "seeds": self.runs[row.name],
                }
                for row in self.rows
            },
            "notes": list(self.table.notes),
        }

    def save(self, out: Path) -> None:
        """Write ``results.json``, ``table4.csv`` and ``table4.md``."""
        write_json(out / "results.json", self.to_dict())
        write_text(out / f"{self.table.name}.csv", as_csv(self.printed) + "\n")
        write_text(out / f"{self.table.name}.md", as_markdown(self.printed) + "\n")


def collect(
    plan: AblationPlan, variants: Sequence[Variant], out: Path, *, notes: Sequence[str] = ()
) -> AblationResults:
    """Collect the runs that are finished."""
    label = plan.label(plan.folder(out))
    table = extended(load_table("table4"), label)
    runs: dict[str, dict[int, dict[str, float]]] = {}
    for job in jobs_of(out, variants, plan.seeds):
        if job.done:
            runs.setdefault(job.variant.name, {})[job.seed] = _numbers(job, table, label)
    said = (*table.notes, *NOTES, *_told(plan, label), *notes)
    rows = tuple(Ours(name, _over_seeds(list(seeds.values())), ()) for name, seeds in runs.items())
    return AblationResults(plan, replace(table, notes=said), rows, runs)


def _told(plan: AblationPlan, label: str) -> tuple[str, ...]:
    """Say how our numbers were made."""
    changed = f" with {', '.join(plan.changes)}" if plan.changes else ""
    return (
        f"Ours: data {label}, preset {plan.preset}{changed}, {plan.minutes:g} minutes of training steps for each run, "
        f"seeds 0 to {plan.seeds - 1} on one split; the mean over seeds, and Student's 95 % interval of that mean, "
        "which tells nothing of other data.",
    )


def extended(table: PaperTable, label: str) -> PaperTable:
    """Add columns of our own: Dice, where the data have no column of the paper, and what the paper does not tell."""
    known = {name.casefold() for column in table.columns for name in column.data}
    fused = [] if label.casefold() in known else [_own(FUSED, label, metric="dice", data=(label,))]
    others = [_own(name, label) for name in (ANCHORED, *OWN)]
    return replace(table, columns=(*table.columns, *fused, *others, _own(STEPS, label, digits=0)))


def _own(name: str, over: str, *, metric: str = "", data: tuple[str, ...] = (), digits: int = 1) -> Column:
    scale = 1.0 if digits == 0 else 100.0
    return Column(name, over=over, metric=metric, data=data, scale=scale, digits=digits, whose="ours")


def _numbers(job: Job, table: PaperTable, label: str) -> dict[str, float]:
    """Read the numbers of a run."""
    scores = job.folder / SCORES
    (ours,) = gather(table, [Result(job.variant.name, scores, label)])
    found = {title: score.mean for title, score in ours.scores.items()}
    fused, anchor = read_results(scores), read_results(scores / ANCHOR)
    others = {name: fused.mean(metric) for name, metric in OWN.items() if Measure(metric) in fused.summary}
    others |= {ANCHORED: anchor.mean("dice")}
    found |= {f"{label} {name}": 100 * of.mean for name, of in others.items()}
    return found | {f"{label} {STEPS}": float(job.facts()["steps"])}


def _over_seeds(runs: Sequence[Mapping[str, float]]) -> dict[str, Score]:
    """Average over runs."""
    titles = dict.fromkeys(title for run in runs for title in run)
    return {title: interval([run[title] for run in runs if title in run]) for title in titles}


def interval(values: Sequence[float]) -> Score:
    r"""Estimate a mean and its 95 % interval, :math:`\bar x \pm t_{n-1, .975}\, s / \sqrt n`.

    Source: Student (1908), doi:10.1093/biomet/6.1.1.
    """
    if len(values) < 2:
        return Score(values[0])
    centre = mean(values)
    reach = float(student.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return Score(centre, (centre - reach, centre + reach))
