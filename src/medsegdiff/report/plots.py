"""Plots of an evaluation: how scores are spread, whether probabilities and uncertainty mean what they say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter

from medsegdiff.evaluation.evaluation import Evaluation
from medsegdiff.evaluation.pool import Pool
from medsegdiff.evaluation.scores import Measure
from medsegdiff.evaluation.stated import Predicted
from medsegdiff.metrics.selective import Selection, aurc, excess_aurc
from medsegdiff.pictures.curves import members_curves
from medsegdiff.pictures.text import literal
from medsegdiff.report.html import Cell, Picture, Section, Table, columns_of, label

SPREAD = ("dice", "iou", "hd95", "nsd", "ged")
"""Metrics whose spread over cases is drawn, where there are values."""
WHOLE = "all structures"
MOST_STRUCTURES = 12
"""Structures of which each has plots of its own; the page would grow too large."""
POINTS, BOX, MEAN = "#4393c3", "#d1e5f0", "#b2182b"
"""Colours: of cases, of the middle half of them, of their mean."""
ALL, NEAR, IDEAL, CHANCE = "#2166ac", "#b2182b", "#1a9850", "#777777"
"""Colours: of all pixels, of those near the masks, of the best there can be, of what says nothing."""
WIDTH = 4.4
"""Of a plot, in inches: two stand side by side on a laptop."""
MANY = 6
"""Structures, of which more have lower rows."""
STEPS = 200
"""Points of a reference line."""


def distributions(evaluation: Evaluation) -> Section | None:
    """Draw the spread of the main metrics over cases, by structure."""
    scores, structures = evaluation.scores, columns_of(evaluation)
    whole = "mean" if len(structures) > 1 else ""
    figures = []
    for metric in SPREAD if len(scores) > 1 else ():
        if Measure(metric) in evaluation.summary:
            title = label(Measure(metric), unit=evaluation.setup.unit)
            values = {structure or whole: scores.column(metric, structure) for structure in structures}
            figures.append(Picture.of(_strips(values, title), f"Distribution of {title} over cases"))
    text = "A point per case; the middle half of them in the box, a line at the median, a red mark at the mean."
    if evaluation.setup.groups:
        text += " Here every case counts alike; the means above are those of groups."
    return Section("Distributions over cases", text, figures=figures) if figures else None


def _strips(values: Mapping[str, Sequence[float]], title: str) -> Figure:
    """Draw every case as a point, by structure: the middle half in a box, a line at the median, a mark at the mean."""
    figure = Figure(figsize=(WIDTH, 0.95 + (0.5 if len(values) <= MANY else 0.28) * len(values)), layout="constrained")
    axis = figure.subplots()
    rng = np.random.default_rng(0)
    for height, column in enumerate(values.values()):
        shown = np.asarray(column, dtype=float)
        if len(shown := shown[np.isfinite(shown)]):
            _strip(axis, shown, height, rng)
    axis.set_title(literal(title), fontsize=10)
    axis.set_yticks(range(len(values)), [literal(name, most=16) for name in values], fontsize=9)
    axis.set_ylim(len(values) - 0.4, -0.6)
    axis.tick_params(axis="x", labelsize=8)
    axis.grid(axis="x", alpha=0.3)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    return figure


def _strip(axis: Axes, shown: np.ndarray, height: int, rng: np.random.Generator) -> None:
    low, median, high = np.percentile(shown, [25, 50, 75])
    axis.fill_between([low, high], height - 0.3, height + 0.3, color=BOX, linewidth=0)
    axis.plot([median, median], [height - 0.3, height + 0.3], color="black", linewidth=1.2)
    scatter = height + rng.uniform(-0.25, 0.25, len(shown))
    axis.plot(shown, scatter, ".", color=POINTS, markersize=4, alpha=0.6, markeredgewidth=0, rasterized=True)
    axis.plot(shown.mean(), height, "D", color=MEAN, markersize=4.5)


def reliability(evaluation: Evaluation) -> Section | None:
    """Draw whether probabilities mean what they say."""
    text = (
        "How often the foreground was there, where it was given a probability; below, how many pixels were given it. "
        "Above the diagonal the model is not sure enough, below it too sure. Easy background hides errors in "
        "the number over all pixels; the one near the masks leaves it out."
    )
    told = evaluation.setup.probability_is
    text += f" Probability: {told[0].lower()}{told[1:]}" if told else ""
    return _by_structure(evaluation, "Reliability", text, _reliability_diagram)


def _reliability_diagram(pool: Pool, name: str) -> Picture:
    """Draw how often the foreground was there where it was given a probability, and how many pixels were given it."""
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], "--", color=CHANCE, linewidth=1, label="as it should be")
    for of, colour, which, shift in (
        (pool.calibration, ALL, "all pixels", -0.2),
        (pool.near, NEAR, "near the masks", 0.2),
    ):
        curve = of.curve()
        used = curve.weight > 0
        upper.plot(
            curve.predicted[used], curve.observed[used], "o-", color=colour, label=which, markersize=4, linewidth=1.2
        )
        width = 1 / len(curve.weight)
        middle = (curve.edges[:-1] + curve.edges[1:]) / 2 + shift * width
        lower.bar(middle[used], curve.weight[used], width=0.38 * width, color=colour)
    errors = f"ECE {pool.calibration.ece():.4f}, near the masks {pool.near.ece():.4f}"
    upper.set_title(f"{literal(name, most=16)}: {errors}", fontsize=10)
    upper.set_ylabel("how often it was there (observed)", fontsize=9)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    lower.set(yscale="log", xlim=(-0.01, 1.01))
    lower.yaxis.set_minor_formatter(NullFormatter())  # of less than two decades they run into each other
    lower.set_ylabel("share of pixels", fontsize=9)
    lower.set_xlabel("probability (predicted)", fontsize=9)
    for axis in (upper, lower):
        _tidy(axis)
    return Picture.of(figure, f"Reliability diagram, {name}")


def selective(evaluation: Evaluation) -> Section | None:
    """Draw whether uncertainty points at errors."""
    text = (
        "Pixels are kept in the order of their uncertainty, over all cases: the error rate of those kept. The curve "
        "begins at the pixels of which the model is certain; the ideal leaves out every error first."
    )
    return _by_structure(evaluation, "Risk and coverage", text, lambda pool, name: _risk_plot(pool.selection, name))


def _risk_plot(selection: Selection, name: str) -> Picture:
    """Draw the error rate of the pixels kept against the share kept: over the shares that occur, nearly all."""
    risk = selection.risk_coverage()
    first, e = float(risk.coverage[0]), float(risk.value[-1])
    low = max(0.0, first - 0.25 * (1 - first)) if first < 1 else 0.9
    coverage = np.linspace(low, 1, STEPS)
    figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
    axis = figure.subplots()
    axis.plot(coverage, np.full_like(coverage, e), "--", color=CHANCE, linewidth=1.2, label="by chance")
    axis.plot(risk.coverage, risk.value, "-", color=ALL, linewidth=1.8, label="this uncertainty")
    axis.plot(risk.coverage[[0, -1]], risk.value[[0, -1]], "o", color=ALL, markersize=4)
    ideal = np.maximum(0, 1 - (1 - e) / np.maximum(coverage, 1e-12))
    axis.plot(coverage, ideal, ":", color=IDEAL, linewidth=1.8, label="ideal")
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    area = aurc(risk)
    axis.set_title(f"{literal(name, most=16)}: AURC {area:.5f}, ideal {area - excess_aurc(risk):.5f}", fontsize=10)
    axis.set_xlabel("coverage: share of pixels kept, the most certain first", fontsize=9)
    axis.set_ylabel("error rate of the pixels kept", fontsize=9)
    axis.set_xlim(low, 1 + 0.02 * (1 - low))
    axis.set_ylim(bottom=0)
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.yaxis.set_major_formatter(PercentFormatter(1))
    _tidy(axis)
    return Picture.of(figure, f"Risk against coverage, {name}")


def predictions(evaluation: Evaluation) -> Section | None:
    """Draw predicted against true Dice, by structure."""
    if not evaluation.predicted:
        return None
    heads = ("structure", "cases", "mean error", "bound holds", "accepted", "Dice of accepted", "Dice of reviewed")
    rows = [
        [name, str(len(of.true)), *(_share(value) for key, value in of.to_dict().items() if key != "cases")]
        for name, of in evaluation.predicted.items()
    ]
    figures = [
        Picture.of(_predicted(of, name), f"Predicted and true Dice of {name}")
        for name, of in [*evaluation.predicted.items()][:MOST_STRUCTURES]
    ]
    text = (
        "What was said of each mask without its reference. Below the line a mask is worse than predicted; a red point "
        "is one that a human was asked to look at. Bounds are to hold in nine of ten cases."
    )
    table = Table([Cell(head) for head in heads], [[Cell(text) for text in row] for row in rows])
    return Section("Was the predicted Dice right?", text, tables=[table], figures=figures)


def _share(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"


def _predicted(of: Predicted, name: str) -> Figure:
    figure = Figure(figsize=(WIDTH, WIDTH), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=CHANCE, linewidth=1)
    axes.vlines(of.predicted, of.bound, of.predicted, color=BOX, linewidth=1, zorder=1)
    for chosen, colour, words in ((~of.review, ALL, "accepted"), (of.review, NEAR, "to be seen")):
        axes.scatter(of.predicted[chosen], of.true[chosen], s=12, color=colour, label=words, zorder=2)
    axes.set(xlabel="predicted Dice, and below it the bound", ylabel="true Dice", title=literal(name))
    axes.legend(loc="upper left", fontsize="small")
    return figure


def ensemble(evaluation: Evaluation) -> Section | None:
    """Draw Dice against the number of members."""
    curve = evaluation.curve
    if curve is None:
        return None
    figure = members_curves({"majority of n members": curve})
    chosen = f" ({evaluation.setup.members_are})" if evaluation.setup.members_are else ""
    text = (
        f"Random subsets of the members{chosen}, fused by majority, over {curve.num_cases} cases; the band is the "
        "standard deviation over subsets. More draws, STAPLE and several runs: medsegdiff paper figure3."
    )
    return Section("How many members?", text, figures=[Picture.of(figure, "Dice against the number of members")])


def _by_structure(
    evaluation: Evaluation, title: str, text: str, draw: Callable[[Pool, str], Picture]
) -> Section | None:
    """Draw all structures pooled; each of several after a click."""
    pooled = evaluation.pooled
    if pooled is None:
        return None
    if len(evaluation.pools) == 1:
        return Section(title, text, figures=[draw(pooled, "all pixels")])
    if len(evaluation.pools) > MOST_STRUCTURES:
        return Section(title, f"{text} Curves of each structure are in metrics.json.", figures=[draw(pooled, WHOLE)])
    each = [draw(pool, name) for name, pool in evaluation.pools.items()]
    return Section(title, text, figures=[draw(pooled, WHOLE)], folded=[Section("By structure", figures=each)])


def _tidy(axis: Axes) -> None:
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.3)
