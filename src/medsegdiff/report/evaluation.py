"""The report of an evaluation: one page with tables, plots and pictures of cases."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

from medsegdiff.evaluation.result import Evaluation
from medsegdiff.report.cases import choose, gallery, swatches
from medsegdiff.report.html import Section, write_report
from medsegdiff.report.plots import disagreement, distributions, ensemble, reliability, selective
from medsegdiff.report.tables import case_table, summary_table

MOST_OPEN = 40
"""Cases in the table of all cases before it is folded."""


def write_page(evaluation: Evaluation, path: Path, *, command: str = "") -> None:
    """Write the report of an evaluation. Of the images only those of the gallery are read again."""
    sections = (
        headline(evaluation),
        scores(evaluation),
        distributions(evaluation),
        reliability(evaluation),
        selective(evaluation),
        disagreement(evaluation),
        ensemble(evaluation),
        pictures(evaluation),
        every_case(evaluation),
        reproduction(evaluation, command),
    )
    title = f"Evaluation of {Path(evaluation.made['predictions']).name}" if evaluation.made else "Evaluation"
    write_report(path, title, [shown for shown in sections if shown is not None], warnings=evaluation.doubts)


def headline(evaluation: Evaluation) -> Section:
    """Say what was scored."""
    made = evaluation.made
    facts = {"cases": str(len(evaluation.cases))}
    if made.get("groups"):
        facts["groups (patients)"] = str(made["groups"])
    if made:
        few, most = made["raters"]
        facts["raters"] = span(few, most)
        facts["members"] = span(made["members_least"], made["members"]) if made["members"] else "none saved"
        facts["structures"] = _several(made["structures"])
    if "dice" in evaluation.summary:
        facts["mean Dice"] = f"{evaluation.summary['dice']['mean']:.4f}"
    facts |= {
        f"empty: {words}": str(evaluation.empty[key]) for key, words in EMPTY.items() if evaluation.empty.get(key)
    }
    fused = f" Members are fused by {made['fused_by']}." if made.get("fused_by") else ""
    text = f"{made['predictions']} against {made['references']}.{fused}" if made else ""
    return Section("What was scored", text, facts=facts)


EMPTY = {"no_reference": "reference alone", "no_prediction": "prediction alone", "both": "both masks"}
"""Counts of empty masks, in words."""


def span(least: int, most: int) -> str:
    """Write two counts, or one if they are the same."""
    return str(least) if least == most else f"{least} – {most}"


def _several(names: Sequence[str], *, most: int = 6) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def scores(evaluation: Evaluation) -> Section:
    """Show the means, and how the numbers are defined."""
    text = (
        "Means with 95 % bootstrap intervals; the arrow points to the better side. "
        "Point at a metric for its definition, or unfold them all below."
    )
    meant = Section("How the numbers are defined, empty masks among them", terms=evaluation.conventions)
    return Section("Scores", text, tables=[summary_table(evaluation)], folded=[meant])


def pictures(evaluation: Evaluation) -> Section | None:
    """Show the best, the median and the worst cases by Dice."""
    chosen = choose(evaluation.cases)
    if evaluation.pairing is None or not chosen:
        return None
    cards = gallery(evaluation.pairing, evaluation.cases, chosen)
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


def every_case(evaluation: Evaluation) -> Section:
    """Show all cases; of many only after a click."""
    table, count = case_table(evaluation), len(evaluation.cases)
    text = "A click on a heading sorts by it, a second one the other way."
    if count <= MOST_OPEN:
        return Section("All cases", text, tables=[table])
    return Section("All cases", folded=[Section(f"{count} cases", text, tables=[table])])


def reproduction(evaluation: Evaluation, command: str) -> Section:
    """Say how to get these numbers again."""
    made = evaluation.made
    plain = ["medsegdiff", "evaluate", made["predictions"], made["references"]] if made else []
    made_by = f"Made by medsegdiff {version('medsegdiff')}."
    text = f"{made_by} All numbers are in metrics.json, those of the cases in metrics.csv."
    return Section("How to get these numbers again", text, code=command or shlex.join(plain))
