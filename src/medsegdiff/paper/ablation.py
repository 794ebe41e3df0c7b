"""Table 4 for data of one's own: each row is trained for the same time, with several seeds, and scored."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console

from medsegdiff.data.dataset import Track, no_progress
from medsegdiff.errors import DataError, TrainingError
from medsegdiff.evaluation import evaluate
from medsegdiff.inference.files import segment_files
from medsegdiff.inference.inputs import find_inputs
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.io.atomic import write_json
from medsegdiff.paper.ablation_plan import Plan
from medsegdiff.paper.variants import Variant
from medsegdiff.training.run import Run
from medsegdiff.training.train import train

log = logging.getLogger(__name__)

DONE = "done.json"
"""In the folder of a run that is finished: steps and seconds."""
RUN, MASKS, SCORES, ANCHOR = "run", "masks", "scores", "anchor"


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
    plan: Plan,
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
        console.print(f"Run {number} of {len(jobs)}: {job.variant.name}, seed {job.seed}; {left}", highlight=False)
        try:
            perform(job, plan, data, device=device, console=console, track=track)
        except TrainingError as error:
            log.warning("%s", error)
            failed[f"{job.variant.name}, seed {job.seed}"] = str(error)
    return failed


def minutes_left(jobs: Sequence[Job], plan: Plan) -> float:
    """Estimate how long the runs will take that are not finished."""
    took = [job.facts()["seconds"] / 60 for job in jobs if job.done]
    return (mean(took) if took else plan.minutes) * sum(not job.done for job in jobs)


def perform(
    job: Job, plan: Plan, data: Path, *, device: str | None, console: Console, track: Track = no_progress
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
    score(job, data, plan, track=track)
    shutil.rmtree(masks / "members", ignore_errors=True)  # of volumes they are large, and their scores are there
    write_json(job.folder / DONE, {"steps": outcome.step, "seconds": time.monotonic() - start})


def score(job: Job, data: Path, plan: Plan, *, track: Track = no_progress) -> None:
    """Score the fused masks with their members, and the anchor's."""
    reading = plan.config(job.variant).data
    masks, scores = job.folder / MASKS, job.folder / SCORES
    evaluate(masks, data, split="test", data=reading, track=track).save(scores)
    evaluate(masks / ANCHOR, data, present_only=True, data=reading, track=track).save(scores / ANCHOR)
