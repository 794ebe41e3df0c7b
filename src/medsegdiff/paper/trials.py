"""A trial: one configuration trained on one data set with one seed, segmented and scored; and many, one by one."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Literal

from filelock import FileLock, Timeout
from rich.console import Console

from medsegdiff.config.diffusion import SamplingOptions
from medsegdiff.config.run import Config
from medsegdiff.data.dataset import CaseFiles, Track, no_progress
from medsegdiff.data.open import list_cases
from medsegdiff.data.split import evenly, names_in, resolve
from medsegdiff.errors import ConfigError, DataError, MedSegDiffError, some
from medsegdiff.evaluation import evaluate
from medsegdiff.evaluation.results import Results, read_results
from medsegdiff.inference.files import segment_files
from medsegdiff.inference.inputs import find_inputs
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.inference.writer import USUAL
from medsegdiff.io.atomic import write_json
from medsegdiff.training.run import Run
from medsegdiff.training.train import train

log = logging.getLogger(__name__)

RECIPE = ("train.val_every=1000000000", "train.val_cases=8")
"""Validation comes once, at the end, so that no trial chooses among its weights."""
PLAN = "plan.json"
DONE, SPENT = "done.json", "spent.json"
"""In the folder of a trial: steps, seconds and the part that was scored, once it is finished; seconds so far."""
RUN, MASKS, SCORES, ANCHOR, LOCK = "run", "masks", "scores", "anchor", "lock"
SEEN = ("masks", "labels", "overlay")
"""What is written of segmentations whose masks alone are scored: maps of many organs are large."""
SCORED = ("test", "val")
"""Parts of a split, of which the first that holds masks is scored."""

Clock = Literal["wall", "processor"]
CLOCKS: Mapping[Clock, Callable[[], float]] = {"wall": time.monotonic, "processor": time.process_time}
"""What budgets are measured with. Other work does not disturb the processor's time, of all threads together."""


@dataclass(frozen=True)
class Trial:
    """A row of a table, on one data set, with one seed."""

    row: str
    data: Path
    seed: int
    folder: Path
    config: Config
    over: str = ""
    """Name of the data set, where a table has several."""
    members: int | None = None
    """Of each image; ``None``: the preset's, here and below."""
    steps: int | None = None
    """Of the sampler."""
    cases: int | None = None
    """Most that are segmented and scored, evenly spread."""
    ensemble: bool = False
    """Whether members and anchor are scored too."""
    clock: Clock = "wall"

    @property
    def name(self) -> str:
        """What users call it."""
        return f"{self.row}{f' on {self.over}' if self.over else ''}, seed {self.seed}"

    @property
    def done(self) -> bool:
        """Whether it is trained, segmented and scored."""
        return (self.folder / DONE).is_file()

    def facts(self) -> dict[str, Any]:
        """Read what it took."""
        told: dict[str, Any] = json.loads((self.folder / DONE).read_text(encoding="utf-8"))
        return told

    def results(self) -> Results:
        """Read its scores."""
        return read_results(self.folder / SCORES)

    @property
    def asked(self) -> SamplingOptions:
        """What is asked of the sampler; where one forward pass gives the mask, there is nothing to ask."""
        if self.config.sampling.mode == "mean":
            return {"seed": self.seed}
        return {"members": self.members, "steps": self.steps, "seed": self.seed}


def budget_in_words(minutes: float, clock: Clock) -> str:
    """Say how long a trial is trained."""
    told = "" if clock == "wall" else " (processor time, of all threads together)"
    return f"{minutes:g} minute{'' if minutes == 1 else 's'}{told} of training steps"


def claim(out: Path, values: Mapping[str, Any], *, may_grow: tuple[str, ...] = ()) -> None:
    """Make a folder a plan's own, or find that it is already; keys that begin with ``may_grow`` may be added later."""
    own, before = json.loads(json.dumps(dict(values))), dict[str, Any](clock="wall")  # there was no other once
    if out.exists() and any(out.iterdir()):
        if not (out / PLAN).is_file():
            raise ConfigError(f"{out} holds something that is not a reproduction. Choose another --out.")
        before |= json.loads((out / PLAN).read_text(encoding="utf-8"))
        new = {key for key in own if key not in before and key.startswith(may_grow)}
        if changed := sorted(key for key in own if key not in new and own[key] != before.get(key)):
            raise ConfigError(
                f"{out} holds a reproduction with other values of {some(changed)}. Repeat them to go on with it, "
                "or choose another --out. Seeds, rows and data sets may be added."
            )
    write_json(out / PLAN, before | own)


def run_trials(
    trials: Sequence[Trial],
    *,
    minutes: float,
    device: str | None = None,
    console: Console | None = None,
    track: Track = no_progress,
) -> dict[str, str]:
    """Make all that are not finished; called again, it goes on where it stopped. Tell what failed, and why.

    Several processes may share them out: each makes those that no other has in hand.
    """
    console, failed = console or Console(quiet=True), dict[str, str]()
    for number, trial in enumerate(trials, start=1):
        with in_hand(trial) as mine:
            if trial.done:
                continue
            if not mine:
                console.print(f"{trial.name}: another process makes it now.", highlight=False, markup=False)
                continue
            left = f"about {minutes_left(trials, minutes, failed):.0f} min left"
            console.print(f"Run {number} of {len(trials)}: {trial.name}; {left}", highlight=False, markup=False)
            try:
                perform(trial, device=device, console=console, track=track)
            except (MedSegDiffError, RuntimeError) as error:  # one that can't go on is no reason to lose the others
                log.warning("%s: %s", trial.name, error)
                failed[trial.name] = " ".join(str(error).split())
    return failed


@contextmanager
def in_hand(trial: Trial) -> Iterator[bool]:
    """Take a trial in hand, if no other process has it; tell whether it is ours."""
    if trial.done:
        yield False
        return
    trial.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(trial.folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def minutes_left(trials: Sequence[Trial], minutes: float, failed: Mapping[str, str] | None = None) -> float:
    """Estimate how long those will take that are left: as others of their row, else as all others, else as planned."""
    took: dict[str, list[float]] = {}
    for trial in trials:
        if trial.done:
            took.setdefault(trial.row, []).append(trial.facts()["seconds"] / 60)
    every = [of for times in took.values() for of in times] or [minutes]
    left = [trial for trial in trials if not trial.done and trial.name not in (failed or {})]
    return sum(mean(took.get(trial.row, every)) for trial in left)


def perform(trial: Trial, *, device: str | None, console: Console, track: Track = no_progress) -> None:
    """Train, segment, score, and write down that this is done, in which time."""
    clock = CLOCKS[trial.clock]
    start, spent = clock(), _seconds(trial.folder / SPENT)
    try:
        steps = _trained(trial, device=device, console=console, track=track)
        scored = _scored(trial, device=device, track=track)
    finally:
        seconds = spent + clock() - start
        write_json(trial.folder / SPENT, {"seconds": seconds})
    write_json(trial.folder / DONE, {"steps": steps, "seconds": seconds, "scored": scored})


def _seconds(file: Path) -> float:
    return float(json.loads(file.read_text(encoding="utf-8"))["seconds"]) if file.is_file() else 0.0


def _trained(trial: Trial, *, device: str | None, console: Console, track: Track) -> int:
    """Train, or go on with it, and count the steps."""
    run = Run(trial.folder / RUN)
    resume = run.state.is_file()
    outcome = train(
        trial.data,
        run.folder,
        trial.config,
        resume=resume,
        device=device,
        console=console,
        track=track,
        clock=CLOCKS[trial.clock],
    )
    if outcome.reason == "interrupted":
        raise KeyboardInterrupt
    return outcome.step


def _scored(trial: Trial, *, device: str | None, track: Track) -> str:
    """Segment a part and score it, of an ensemble with its members, and the anchor's masks; tell which part."""
    run, masks, scores = Run(trial.folder / RUN), trial.folder / MASKS, trial.folder / SCORES
    segmenter = Segmenter.from_pretrained(run.folder, device=device)
    part, files = scored_part(trial.data, segmenter, run.split, cases=trial.cases)
    finished = segment_files(
        segmenter,
        files,
        masks,
        save_members=trial.ensemble,
        parts=USUAL if trial.ensemble else SEEN,
        split_file=run.split,
        overwrite=True,
        track=track,
        **trial.asked,
    )
    if finished.failed:
        raise DataError(next(iter(finished.failed.values())))
    reading = trial.config.data
    evaluate(masks, trial.data, split=part, present_only=True, data=reading, track=track).save(scores)
    if trial.ensemble:
        anchor = evaluate(masks / ANCHOR, trial.data, split=part, present_only=True, data=reading, track=track)
        anchor.save(scores / ANCHOR)
    shutil.rmtree(masks / "members", ignore_errors=True)  # of volumes they are large, and their scores are there
    return part


def scored_part(
    data: Path, segmenter: Segmenter, split: Path, *, cases: int | None = None
) -> tuple[str, list[CaseFiles]]:
    """Find the cases to score: those for testing, or, where none of them has a mask, those for validation."""
    files = find_inputs([data], like=segmenter.config, noted=log.info)
    reading = segmenter.config.reading.model_copy(update={"layout": segmenter.config.spec.layout or "auto"})
    known = set(list_cases(data, reading).masks.names)
    for part in SCORED:
        try:
            named = {resolve(name, known) for name in names_in(split, part)}
        except DataError:  # there is no such part
            continue
        if found := [case for case in files if case.name in named & known]:
            return part, evenly(found, cases or len(found))
    raise DataError(f"{data}: no case for testing or validation has a mask. Name some in split.csv.")
