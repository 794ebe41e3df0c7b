"""The report of an evaluation: one page with tables, plots and pictures of cases."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

from medsegdiff.evaluation.evaluation import Evaluation
from medsegdiff.evaluation.scores import Measure
from medsegdiff.report.cases import choose, gallery, swatches
from medsegdiff.report.html import LABELS, Cell, Section, Table, case_table, number, summary_table, write_report
from medsegdiff.report.plots import distributions, ensemble, predictions, reliability, selective

MOST_OPEN = 40
"""Cases in the table of all cases before it is folded."""
EMPTY = {"no_reference": "reference alone", "no_prediction": "prediction alone", "both": "both masks"}
"""Counts of empty masks, in words."""


def write_page(evaluation: Evaluation, path: Path, *, command: str = "") -> None:
    """Write the report of an evaluation. Of the images only those of the gallery are read again."""
    sections = (
        _headline(evaluation),
        _scores(evaluation),
        _lesions(evaluation),
        distributions(evaluation),
        reliability(evaluation),
        selective(evaluation),
        _failures(evaluation),
        predictions(evaluation),
        ensemble(evaluation),
        pictures(evaluation),
        _every_case(evaluation),
        _reproduction(evaluation, command),
    )
    title = f"Evaluation of {Path(evaluation.setup.predictions).name}"
    write_report(path, title, [shown for shown in sections if shown is not None], warnings=evaluation.warnings)


def _headline(evaluation: Evaluation) -> Section:
    """Say what was scored."""
    setup = evaluation.setup
    facts = {"cases": str(len(evaluation.scores))}
    if setup.groups:
        facts["groups (patients)"] = str(setup.groups)
    if setup.raters is not None:
        facts["raters"] = span(*setup.raters)
    facts["members"] = span(setup.members_least or 0, setup.members) if setup.members else "none saved"
    if setup.members_are:
        facts["members"] += f", chosen of {setup.chosen_of} candidates"
    facts["structures"] = _several(setup.structures)
    if (dice := evaluation.summary.get(Measure("dice"))) is not None:
        facts["mean Dice"] = f"{dice.mean:.4f}"
    facts |= {
        f"empty: {words}": str(evaluation.empty[key]) for key, words in EMPTY.items() if evaluation.empty.get(key)
    }
    fused = f" Members are fused by {setup.fused_by}." if setup.fused_by else ""
    truth = f" Reference: {evaluation.reference_is}" if evaluation.reference_is else ""
    return Section("What was scored", f"{setup.predictions} against {setup.references}.{fused}{truth}", facts=facts)


def span(least: int, most: int) -> str:
    """Write two counts, or one if they are the same."""
    return str(least) if least == most else f"{least} – {most}"


def _several(names: Sequence[str], *, most: int = 6) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _scores(evaluation: Evaluation) -> Section:
    """Show the means, and how the numbers are defined."""
    text = (
        "Means with 95 % bootstrap intervals; the arrow points to the better side. "
        "Point at a metric for its definition, or unfold them all below."
    )
    text += f" {evaluation.conventions['members']}" if evaluation.setup.members_are else ""
    meant = Section("How the numbers are defined, empty masks among them", terms=evaluation.conventions)
    return Section("Scores", text, tables=[summary_table(evaluation)], folded=[meant])


def _lesions(evaluation: Evaluation) -> Section | None:
    """Show how many lesions were found, and the metrics of all of them together."""
    counted = evaluation.all_lesions
    if not counted:
        return None
    metrics = ("lesion_f1", "pq")
    heads = [
        "structure",
        "in references",
        "found",
        "missed",
        "false",
        "no lesion",
        *(f"pooled {LABELS[m]}" for m in metrics),
    ]
    rows = []
    for name, of in counted.items():
        found, numbers = of.matching, of.numbers()
        counts = map(str, (found.tp + found.fn, found.tp, found.fn, found.fp, of.without))
        rows.append([*map(Cell, (name, *counts)), *(Cell(number(numbers[m], m)) for m in metrics)])
    text = (
        f"{evaluation.conventions['lesion']} No lesion: comparisons in which neither mask has one, which no mean has."
    )
    return Section("Lesions of all cases", text, tables=[Table([*map(Cell, heads)], rows)])


def _failures(evaluation: Evaluation) -> Section | None:
    """Show how well each doubt tells which cases failed."""
    if not evaluation.failure:
        return None
    heads = [Cell("doubt"), Cell("rank correlation with 1 − Dice ↑"), Cell("AURC ↓"), Cell("excess AURC ↓")]
    rows = [
        [Cell(name), *(Cell(number(of[key], key)) for key in ("spearman", "aurc", "excess_aurc"))]
        for name, of in evaluation.failure.items()
    ]
    text = evaluation.conventions["failure"]
    return Section("Which cases failed?", text, tables=[Table(heads, rows)])


def pictures(evaluation: Evaluation) -> Section | None:
    """Show the best, the median and the worst cases by Dice."""
    chosen = choose(evaluation.scores)
    if evaluation.pairing is None or not chosen:
        return None
    cards = gallery(evaluation.pairing, evaluation.scores, chosen)
    text = "By Dice. Where contours run together, their colours take turns." + _missing(
        evaluation, [name for names in chosen.values() for name in names]
    )
    return Section("Best, median and worst cases", text, cards=cards, swatches=swatches(evaluation.pairing))


def _missing(evaluation: Evaluation, names: Iterable[str]) -> str:
    """Say why there are no images."""
    pairing = evaluation.pairing
    if pairing is None or any(name in pairing.cases for name in names):
        return ""
    return (
        " The references are a bare folder of masks, so contours are drawn on black; "
        "give the data folder that holds images/ and masks/ to see the images."
    )


def _every_case(evaluation: Evaluation) -> Section:
    """Show all cases; of many only after a click."""
    table, count = case_table(evaluation), len(evaluation.scores)
    text = "A click on a heading sorts by it, a second one the other way."
    if count <= MOST_OPEN:
        return Section("All cases", text, tables=[table])
    return Section("All cases", folded=[Section(f"{count} cases", text, tables=[table])])


def _reproduction(evaluation: Evaluation, command: str) -> Section:
    """Say how to get these numbers again."""
    plain = shlex.join(["medsegdiff", "evaluate", evaluation.setup.predictions, evaluation.setup.references])
    made_by = f"Made by medsegdiff {version('medsegdiff')}."
    text = f"{made_by} All numbers are in metrics.json, those of the cases in metrics.csv."
    return Section("How to get these numbers again", text, code=command or plain)
