"""Plots of an evaluation as sections of its report."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure

from medsegdiff.evaluation.pool import Pool
from medsegdiff.evaluation.result import Evaluation
from medsegdiff.pictures.ensemble_curve import curves_plot
from medsegdiff.report.curves import referral_plot, reliability_diagram, risk_plot
from medsegdiff.report.distributions import disagreement_plot, strips
from medsegdiff.report.embedded import svg_uri
from medsegdiff.report.html import Picture, Section
from medsegdiff.report.tables import columns_of, label

HEADLINE = ("dice", "iou", "hd95", "nsd", "ged")
"""Metrics whose spread over cases is drawn, where there are values."""
WHOLE = "all structures"
MOST_STRUCTURES = 12
"""Structures of which each has plots of its own; the page would grow too large."""


def distributions(evaluation: Evaluation) -> Section | None:
    """Draw the spread of the main metrics over cases, by structure."""
    if len(evaluation.cases) < 2:
        return None
    unit = str(evaluation.made.get("unit", ""))
    columns = columns_of(evaluation)
    figures = []
    for metric in (key for key in HEADLINE if key in evaluation.summary):
        keys = {
            name or ("mean" if len(columns) > 1 else ""): f"{metric}/{name}" if name else metric for name in columns
        }
        values = {name: [float(row.get(key, np.nan)) for row in evaluation.cases] for name, key in keys.items()}
        title = label(metric, unit=unit)
        figures.append(_drawn(strips(values, title), f"Distribution of {title} over cases"))
    text = "A point per case; the middle half of them in the box, a line at the median, a red mark at the mean."
    if evaluation.made.get("groups"):
        text += " Here every case counts alike; the means above are those of groups."
    return Section("Distributions over cases", text, figures=figures) if figures else None


def reliability(evaluation: Evaluation) -> Section | None:
    """Draw whether probabilities mean what they say."""
    text = (
        "How often the foreground was there, where it was given a probability; below, how many pixels were given it. "
        "Above the diagonal the model is not sure enough, below it too sure. Easy background hides errors in "
        "the number over all pixels; the one near the masks leaves it out."
    )

    def draw(pool: Pool, name: str) -> list[Picture]:
        figure = reliability_diagram(pool.calibration, pool.near, title=name)
        return [_drawn(figure, f"Reliability diagram, {name}")]

    told = evaluation.made.get("probability_is", "")
    return _by_structure(
        evaluation, "Reliability", f"{text} Probability: {told[0].lower()}{told[1:]}" if told else text, draw
    )


def selective(evaluation: Evaluation) -> Section | None:
    """Draw whether uncertainty points at errors."""
    text = (
        "Pixels are kept in the order of their uncertainty, over all cases. Left: the error rate of "
        "those kept. Right: Dice, if a person draws the rest. The curve begins at the pixels of which the model is "
        "certain; the ideal hands over every error first."
    )

    def draw(pool: Pool, name: str) -> list[Picture]:
        return [
            _drawn(risk_plot(pool.selection, title=name), f"Risk against coverage, {name}"),
            _drawn(referral_plot(pool.selection, title=name), f"Dice with referral against coverage, {name}"),
        ]

    return _by_structure(evaluation, "Risk and coverage", text, draw)


def disagreement(evaluation: Evaluation) -> Section | None:
    """Draw whether members that disagree foretell a poor mask."""
    rows = [row for row in evaluation.cases if not np.isnan([row.get("agreement", np.nan), row["dice"]]).any()]
    if len(rows) < 2:
        return None
    figure = disagreement_plot(
        [1 - row["agreement"] for row in rows],
        [1 - row["dice"] for row in rows],
        words="1 − agreement of members",
        correlation=evaluation.correlation.get("1 - agreement"),
    )
    text = "A point per case. Where members agree the mask should be good; where they do not, look at it."
    return Section("Does disagreement foretell error?", text, figures=[_drawn(figure, "Error against disagreement")])


def ensemble(evaluation: Evaluation) -> Section | None:
    """Draw Dice against the number of members."""
    curve = evaluation.curve
    if curve is None:
        return None
    figure = curves_plot({"majority of n members": curve})
    text = (
        f"Random subsets of the members, fused by majority, over {curve.num_cases} cases; the band is the standard "
        "deviation over subsets. More draws, STAPLE and several runs: medsegdiff benchmark ensemble."
    )
    return Section("How many members?", text, figures=[_drawn(figure, "Dice against the number of members")])


def _by_structure(
    evaluation: Evaluation, title: str, text: str, draw: Callable[[Pool, str], list[Picture]]
) -> Section | None:
    """Draw all structures pooled; each of several after a click."""
    pooled = evaluation.pooled
    if pooled is None:
        return None
    if len(evaluation.pools) == 1:
        return Section(title, text, figures=draw(pooled, "all pixels"))
    if len(evaluation.pools) > MOST_STRUCTURES:
        return Section(title, f"{text} Curves of each structure are in metrics.json.", figures=draw(pooled, WHOLE))
    each = [picture for name, pool in evaluation.pools.items() for picture in draw(pool, name)]
    return Section(title, text, figures=draw(pooled, WHOLE), folded=[Section("By structure", figures=each)])


def _drawn(figure: Figure, alt: str) -> Picture:
    return Picture(svg_uri(figure), alt)
