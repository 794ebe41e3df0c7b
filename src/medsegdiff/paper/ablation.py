"""Table 4 for data of one's own: each row is trained for the same time, with several seeds, scored, and laid out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean, stdev

from rich.console import Console
from scipy.stats import t as student

from medsegdiff.data.dataset import Track, no_progress
from medsegdiff.evaluation import Measure
from medsegdiff.evaluation.results import read_results
from medsegdiff.paper.ablation_plan import NOTES, AblationPlan, Variant
from medsegdiff.paper.reproduction import Reproduction
from medsegdiff.paper.results import Ours, Result, Score, gather
from medsegdiff.paper.tables import Column, PaperTable, load_table
from medsegdiff.paper.trials import ANCHOR, SCORES, Trial, budget_in_words, run_trials

FUSED, ANCHORED, STEPS = "Dice", "Dice of the anchor", "steps"
OWN = {"GED": "ged", "agreement": "agreement"}
"""Column → metric, in per cent, where there is such a score."""


def ablate(
    plan: AblationPlan,
    variants: Sequence[Variant],
    out: Path,
    *,
    device: str | None = None,
    console: Console | None = None,
    track: Track = no_progress,
) -> dict[str, str]:
    """Make all trials that are not finished; called again, it goes on where it stopped."""
    for variant in variants:
        plan.config(variant)  # what can't be built shows before the work
    plan.claim(out)
    trials = plan.trials(out, variants, plan.folder(out))
    return run_trials(trials, minutes=plan.minutes, device=device, console=console, track=track)


def collect(plan: AblationPlan, variants: Sequence[Variant], out: Path, *, notes: Sequence[str] = ()) -> Reproduction:
    """Collect the trials that are finished."""
    label = plan.label
    table = extended(load_table("table4"), label)
    runs: dict[str, dict[str, dict[str, float]]] = {}
    for trial in plan.trials(out, variants, plan.folder(out)):
        if trial.done:
            runs.setdefault(trial.row, {})[str(trial.seed)] = _numbers(trial, table, label)
    said = (*table.notes, *NOTES, *_told(plan, label), *notes)
    rows = tuple(Ours(name, _over_seeds(list(seeds.values())), ()) for name, seeds in runs.items())
    facts = {name: {"seeds": seeds} for name, seeds in runs.items()}
    return Reproduction(asdict(plan), replace(table, notes=said), rows, facts)


def _told(plan: AblationPlan, label: str) -> tuple[str, ...]:
    """Say how our numbers were made."""
    changed = f" with {', '.join(plan.changes)}" if plan.changes else ""
    return (
        f"Ours: data {label}, preset {plan.preset}{changed}, {budget_in_words(plan.minutes, plan.clock)} for each run, "
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


def _numbers(trial: Trial, table: PaperTable, label: str) -> dict[str, float]:
    """Read the numbers of a trial."""
    scores = trial.folder / SCORES
    (ours,) = gather(table, [Result(trial.row, scores, label)])
    found = {title: score.mean for title, score in ours.scores.items()}
    fused, anchor = read_results(scores), read_results(scores / ANCHOR)
    others = {name: fused.mean(metric) for name, metric in OWN.items() if Measure(metric) in fused.summary}
    others |= {ANCHORED: anchor.mean("dice")}
    found |= {f"{label} {name}": 100 * of.mean for name, of in others.items()}
    return found | {f"{label} {STEPS}": float(trial.facts()["steps"])}


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
