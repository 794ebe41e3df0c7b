"""Plots over cases: how a score is spread, and whether disagreement foretells error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

POINTS, BOX, MEAN = "#4393c3", "#d1e5f0", "#b2182b"
"""Colours: of cases, of the middle half of them, of their mean."""
WIDTH = 4.4
"""Of a plot, in inches: two stand side by side on a laptop."""
MANY = 6
"""Structures, of which more have lower rows."""


def strips(values: Mapping[str, Sequence[float]], title: str) -> Figure:
    """Draw every case as a point, by structure: the middle half in a box, a line at the median, a mark at the mean."""
    figure = Figure(figsize=(WIDTH, 0.95 + (0.5 if len(values) <= MANY else 0.28) * len(values)), layout="constrained")
    axis = figure.subplots()
    rng = np.random.default_rng(0)
    for height, column in enumerate(values.values()):
        shown = np.asarray(column, dtype=float)
        if len(shown := shown[np.isfinite(shown)]):
            _strip(axis, shown, height, rng)
    axis.set_title(title, fontsize=10)
    axis.set_yticks(range(len(values)), [_short(name) for name in values], fontsize=9)
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


def disagreement_plot(
    predicted: Sequence[float], error: Sequence[float], *, words: str, correlation: float | None
) -> Figure:
    """Draw, over cases, what the ensemble says of itself against its error."""
    figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
    axis = figure.subplots()
    axis.plot(predicted, error, ".", color=POINTS, markersize=7, alpha=0.7, markeredgewidth=0, rasterized=True)
    known = correlation is not None and np.isfinite(correlation)
    rho = f"Spearman's ρ = {correlation:.2f}" if known else "no rank correlation: too few cases, or all alike"
    axis.set_title(f"{rho}, {len(error)} cases", fontsize=10)
    axis.set_xlabel(f"predicted disagreement: {words}", fontsize=9)
    axis.set_ylabel("error: 1 − Dice", fontsize=9)
    axis.set_xlim(left=0)
    axis.set_ylim(bottom=0)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.3)
    return figure


def _short(name: str, *, most: int = 16) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
