"""Plots over pixels: reliability of probabilities, and what uncertainty is worth when the doubtful are left out."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from medsegdiff.metrics.calibration import Calibration
from medsegdiff.metrics.selective import Curve, Selection, aurc, excess_aurc
from medsegdiff.report.distributions import WIDTH

ALL, NEAR, IDEAL, CHANCE = "#2166ac", "#b2182b", "#1a9850", "#777777"
"""Colours: of all pixels, of those near the masks, of the best there can be, of what says nothing."""
STEPS = 200
"""Points of a reference line."""


def reliability_diagram(whole: Calibration, near: Calibration, *, title: str) -> Figure:
    """Draw how often the foreground was there where it was given a probability, and how many pixels were given it."""
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], "--", color=CHANCE, linewidth=1, label="as it should be")
    for of, colour, name, shift in ((whole, ALL, "all pixels", -0.2), (near, NEAR, "near the masks", 0.2)):
        curve = of.curve()
        used = curve.weight > 0
        upper.plot(
            curve.predicted[used], curve.observed[used], "o-", color=colour, label=name, markersize=4, linewidth=1.2
        )
        width = 1 / len(curve.weight)
        middle = (curve.edges[:-1] + curve.edges[1:]) / 2 + shift * width
        lower.bar(middle[used], curve.weight[used], width=0.38 * width, color=colour)
    upper.set_title(f"{title}: ECE {whole.ece():.4f}, near the masks {near.ece():.4f}", fontsize=10)
    upper.set_ylabel("how often it was there (observed)", fontsize=9)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    lower.set(yscale="log", xlim=(-0.01, 1.01))
    lower.set_ylabel("share of pixels", fontsize=9)
    lower.set_xlabel("probability (predicted)", fontsize=9)
    _tidy(upper, lower)
    return figure


def risk_plot(selection: Selection, *, title: str) -> Figure:
    """Draw the error rate of the pixels kept against the share kept, the most certain first."""
    risk = selection.risk_coverage()
    e = float(risk.value[-1])
    figure, axis, coverage = _by_coverage(risk)
    ideal = np.maximum(0, 1 - (1 - e) / np.maximum(coverage, 1e-12))
    _lines(figure, axis, risk, coverage, best=ideal, chance=np.full_like(coverage, e))
    found = aurc(risk)
    axis.set_title(f"{title}: AURC {found:.5f}, ideal {found - excess_aurc(risk):.5f}", fontsize=10)
    axis.set_ylabel("error rate of the pixels kept", fontsize=9)
    axis.set_ylim(bottom=0)
    axis.yaxis.set_major_formatter(PercentFormatter(1))
    return figure


def referral_plot(selection: Selection, *, title: str) -> Figure:
    """Draw Dice of the whole mask where the most uncertain pixels are handed to a person."""
    dice = selection.dice_coverage(referred=True)
    figure, axis, coverage = _by_coverage(dice)
    best, chance = referral_bounds(selection, coverage)
    _lines(figure, axis, dice, coverage, best=best, chance=chance)
    axis.set_title(f"{title}: Dice of all pixels {dice.value[-1]:.4f}", fontsize=10)
    axis.set_ylabel("Dice, the rest drawn by a person", fontsize=9)
    return figure


def referral_bounds(
    selection: Selection, coverage: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Compute the Dice with referral that an ideal order of pixels has, and one that says nothing.

    The ideal hands over what was missed first, which lifts Dice more than what is too much.
    """
    n, p, r, both = (
        float(a.sum()) for a in (selection.pixels, selection.prediction, selection.reference, selection.both)
    )
    handed = (1 - coverage) * n
    missed = np.maximum(r - both - handed, 0)
    surplus = np.clip(p - both - (handed - (r - both)), 0, p - both)
    ideal = _dice(r - missed, missed + surplus)
    return ideal, _dice(coverage * both + (1 - coverage) * r, coverage * (p + r - 2 * both))


def _dice(right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    total = 2 * right + wrong
    return np.divide(2 * right, total, out=np.ones_like(total), where=total > 0)


def _by_coverage(curve: Curve) -> tuple[Figure, Axes, np.ndarray]:
    """Begin a plot over the coverage at which the curve has points: nearly all pixels are certain."""
    figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
    axis = figure.subplots()
    first = float(curve.coverage[0])
    low = max(0.0, first - 0.25 * (1 - first)) if first < 1 else 0.9
    axis.set_xlim(low, 1 + 0.02 * (1 - low))
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.set_xlabel("coverage: share of pixels kept, the most certain first", fontsize=9)
    _tidy(axis)
    return figure, axis, np.linspace(low, 1, STEPS)


def _lines(
    figure: Figure, axis: Axes, curve: Curve, coverage: np.ndarray, *, best: np.ndarray, chance: np.ndarray
) -> None:
    axis.plot(coverage, chance, "--", color=CHANCE, linewidth=1.2, label="by chance")
    axis.plot(curve.coverage, curve.value, "-", color=ALL, linewidth=1.8, label="this uncertainty")
    axis.plot(curve.coverage[[0, -1]], curve.value[[0, -1]], "o", color=ALL, markersize=4)
    axis.plot(coverage, best, ":", color=IDEAL, linewidth=1.8, label="ideal")
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)


def _tidy(*axes: Axes) -> None:
    for axis in axes:
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
