"""Mean and interval over seeds, laid into the columns of table 4."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy.stats import t as student

from medsegdiff.evaluation.scores import Measure, read_results
from medsegdiff.io.atomic import write_json, write_text
from medsegdiff.paper.ablation import ANCHOR, SCORES, Job, jobs_of
from medsegdiff.paper.ablation_plan import Plan
from medsegdiff.paper.formats import as_csv, as_markdown
from medsegdiff.paper.layout import Printed, lay_out
from medsegdiff.paper.results import Ours, Result, Score, gather
from medsegdiff.paper.tables import Column, PaperTable, load_table
from medsegdiff.paper.variants import NOTES, Variant

FUSED, ANCHORED, STEPS = "Dice", "Dice of the anchor", "steps"
OWN = {"GED": "ged", "agreement": "agreement"}
"""Column → metric, in per cent, where there is such a score."""


@dataclass(frozen=True)
class Tally:
    """What a reproduction found."""

    plan: Plan
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


def tally(plan: Plan, variants: Sequence[Variant], out: Path, *, notes: Sequence[str] = ()) -> Tally:
    """Collect the runs that are finished."""
    label = plan.label(plan.folder(out))
    table = extended(load_table("table4"), label)
    runs: dict[str, dict[int, dict[str, float]]] = {}
    for job in jobs_of(out, variants, plan.seeds):
        if job.done:
            runs.setdefault(job.variant.name, {})[job.seed] = numbers(job, table, label)
    said = (*table.notes, *NOTES, *_told(plan, label), *notes)
    rows = tuple(Ours(name, over_seeds(list(seeds.values())), ()) for name, seeds in runs.items())
    return Tally(plan, replace(table, notes=said), rows, runs)


def _told(plan: Plan, label: str) -> tuple[str, ...]:
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


def numbers(job: Job, table: PaperTable, label: str) -> dict[str, float]:
    """Read the numbers of a run."""
    scores = job.folder / SCORES
    (ours,) = gather(table, [Result(job.variant.name, scores, label)])
    found = {title: score.mean for title, score in ours.scores.items()}
    fused, anchor = read_results(scores), read_results(scores / ANCHOR)
    others = {name: fused.mean(metric) for name, metric in OWN.items() if Measure(metric) in fused.summary}
    others |= {ANCHORED: anchor.mean("dice")}
    found |= {f"{label} {name}": 100 * of.mean for name, of in others.items()}
    return found | {f"{label} {STEPS}": float(job.facts()["steps"])}


def over_seeds(runs: Sequence[Mapping[str, float]]) -> dict[str, Score]:
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
