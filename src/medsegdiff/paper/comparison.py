"""Tables 1 to 3 for data of one's own: each system is trained for the same time, scored, and laid out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console

from medsegdiff.data.dataset import Track, no_progress
from medsegdiff.errors import some
from medsegdiff.evaluation.results import Results
from medsegdiff.evaluation.scores import Scores
from medsegdiff.paper.comparison_plan import ComparisonPlan, check_data
from medsegdiff.paper.given import SECONDS, STEPS, Fitted, Given, fitted
from medsegdiff.paper.reproduction import Reproduction
from medsegdiff.paper.results import Ours, Score, scores_of
from medsegdiff.paper.systems import System
from medsegdiff.paper.tables import Column, PaperTable
from medsegdiff.paper.trials import Trial, budget_in_words, run_trials


def compare_systems(
    plan: ComparisonPlan,
    out: Path,
    *,
    device: str | None = None,
    console: Console | None = None,
    track: Track = no_progress,
) -> dict[str, str]:
    """Make all trials that are not finished; called again, it goes on where it stopped. Tell what failed, and why."""
    plan.check()
    plan.claim(out)
    trials = plan.trials(out)
    check_data(trials)
    return run_trials(trials, minutes=plan.minutes, device=device, console=console, track=track)


def collect(plan: ComparisonPlan, out: Path, *, notes: Sequence[str] = ()) -> Reproduction:
    """Collect the trials that are finished."""
    done = [trial for trial in plan.trials(out) if trial.done]
    made = {given.name: [trial for trial in done if trial.over == given.name] for given in plan.given}
    fits = {given.name: _fit(plan, given, made[given.name]) for given in plan.given}
    rows = [(s, {name: [t for t in of if t.row == s.name] for name, of in made.items()}) for s in plan.systems]
    rows = [(system, of) for system, of in rows if any(of.values())]
    table = _with(plan, fits, (*_about(plan, made, fits), *notes))
    facts = {system.name: {"preset": system.preset, "trials": _facts(of)} for system, of in rows}
    ours = tuple(_ours(plan, system, of, fits) for system, of in rows)
    return Reproduction(plan.told(), table, ours, facts)


def _fit(plan: ComparisonPlan, given: Given, trials: Sequence[Trial]) -> Fitted:
    """Fit columns to what was scored; to nothing while nothing was."""
    if not trials:
        return Fitted(given.columns)
    return fitted(given, trials[0].results().setup.structures, plan.table)


def _with(plan: ComparisonPlan, fits: Mapping[str, Fitted], notes: Sequence[str]) -> PaperTable:
    """Keep the columns of the data sets that are given, with ours behind them, and what is known to be wrong there."""
    table, columns = plan.table, tuple(column for fit in fits.values() for column in fit.columns)
    titles = {column.title for column in columns}
    faults = [replace(f, columns=f.columns & titles, cells=_cells(f.cells, titles)) for f in table.faults]
    known = tuple(fault for fault in faults if fault.columns or fault.cells)
    return replace(table, columns=columns, faults=known, notes=(*table.notes, *notes))


def _cells(cells: frozenset[tuple[str, str]], titles: set[str]) -> frozenset[tuple[str, str]]:
    return frozenset((method, title) for method, title in cells if title in titles)


def _ours(
    plan: ComparisonPlan, system: System, made: Mapping[str, Sequence[Trial]], fits: Mapping[str, Fitted]
) -> Ours:
    """Fill the row of a system, and say how it was made."""
    found: dict[str, Score] = {}
    for given in plan.given:
        if trials := made[given.name]:
            found |= scored(fits[given.name].columns, [trial.results() for trial in trials])
            found |= _costs(given, trials)
    one = next(trial for trials in made.values() for trial in trials)
    few = [f"{name} ({_seeds([trial.seed for trial in of])})" for name, of in made.items() if len(of) < plan.seeds]
    short = f"; finished alone: {', '.join(few)}" if few and plan.seeds > 1 else ""
    return Ours(system.name, found, (f"{system.name}: {_how(system, one)}{short}.",))


def _how(system: System, trial: Trial) -> str:
    config, asked = trial.config, trial.asked
    members, steps = asked.get("members") or config.sampling.members, asked.get("steps") or config.sampling.steps
    drawn = "one forward pass" if config.sampling.mode == "mean" else f"{members} members of {steps} steps"
    return f"preset {system.preset}, {config.data.image_size} px, {drawn}"


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {some([str(seed) for seed in seeds], most=10)}"


def scored(columns: Sequence[Column], runs: Sequence[Results]) -> dict[str, Score]:
    """Average seeds within each case, then cases, or patients; intervals are the bootstrap's over these."""
    metrics = {column.metric for column in columns if column.metric}
    scores = Scores.averaged([run.scores for run in runs])
    wanted = {of: numbers for of, numbers in scores.columns.items() if of.metric in metrics}
    return scores_of(columns, replace(scores, columns=wanted).means())


def _costs(given: Given, trials: Sequence[Trial]) -> dict[str, Score]:
    """Average what a training took."""
    facts = [trial.facts() for trial in trials]
    titles = {name: f"{given.over} {name}".strip() for name in (STEPS, SECONDS)}
    return {titles[name]: Score(float(mean(fact[name] for fact in facts))) for name in (STEPS, SECONDS)}


def _facts(made: Mapping[str, Sequence[Trial]]) -> dict[str, dict[str, Any]]:
    return {name: {str(trial.seed): trial.facts() for trial in trials} for name, trials in made.items() if trials}


def _about(plan: ComparisonPlan, made: Mapping[str, Sequence[Trial]], fits: Mapping[str, Fitted]) -> list[str]:
    """Say how our numbers were made, and what is left out."""
    changed = f", with {', '.join(plan.changes)}" if plan.changes else ""
    recipe = "each with its own recipe" if plan.recipe == "own" else "all with the recipe of V2"
    said = [
        f"Ours: {budget_in_words(plan.minutes, plan.clock)} for each trial, {recipe}{changed}; "
        f"{_seeds(range(plan.seeds))} on one split. A case's number is the mean over "
        "seeds; the interval is the 95 % bootstrap interval of the mean over cases, or patients where they are told "
        "(2000 resamples), and tells nothing of other seeds.",
        f"{STEPS}, {SECONDS}: the mean over trials; seconds are those of training, segmentation and scores.",
    ]
    for given in plan.given:
        said += [*([_basis(given, made[given.name][0])] if made[given.name] else []), *fits[given.name].notes]
    titles = {column.title for given in plan.given for column in given.columns}
    if absent := list(dict.fromkeys(c.over for c in plan.table.columns if c.over and c.title not in titles)):
        said.append(f"No data were given for {some(absent, most=20)}: left out.")
    said += beginnings(plan, [trial for trials in made.values() for trial in trials])
    sizes = sorted({trial.config.data.image_size for trials in made.values() for trial in trials})
    if len(sizes) > 1:
        said.append(
            f"Images are of {some(list(map(str, sizes)))} px, as presets say; --set data.image_size makes all alike."
        )
    return said


def beginnings(plan: ComparisonPlan, trials: Sequence[Trial]) -> list[str]:
    """Say which systems did not begin with weights as their authors' did, and which ones did."""
    files = {trial.row: getattr(trial.config.model, "weight_files", ()) for trial in trials}
    without = [system for system in plan.systems if system.pretrained and not files.get(system.name)]
    scratch = [f"{system.name} ({system.pretrained})" for system in without]
    given = [f"{row} ({some([Path(file).name for file in of])})" for row, of in files.items() if of]
    said = [f"Weights that the authors began with, and ours do not: {some(scratch, most=20)}."] if scratch else []
    return said + ([f"Begun with weights from files: {some(given, most=20)}."] if given else [])


def _basis(given: Given, trial: Trial) -> str:
    """Say on what a data set's numbers are."""
    results, part = trial.results(), trial.facts()["scored"]
    count, groups = len(results.scores), results.setup.groups
    cases = f"{count} {part} case{'s' if count != 1 else ''}{f' of {groups} patients' if groups else ''}"
    chosen = "" if part == "test" else " (none for testing has a mask; those that calibrate probabilities)"
    layout = "" if trial.config.data.layout == "auto" else f" as {trial.config.data.layout}"
    what = some(results.setup.structures, most=20)
    return f"{given.name}: {given.where}{layout}, {cases}{chosen}, {what}."
