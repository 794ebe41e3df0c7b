"""A plot of paired differences: every case as a point, the mean with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medsegdiff.pictures.figures import save

REAL, CHANCE, POINTS = "#b2182b", "#4d4d4d", "#92b5d6"
"""Colours: of a real difference, of one that may be chance, of cases."""


@dataclass(frozen=True)
class Panel:
    """One metric."""

    title: str
    rows: Mapping[str, tuple[Sequence[float], float, tuple[float, float] | None, bool]]
    """By run: differences by case, their mean, its interval, whether it is real."""


def draw_differences(panels: Sequence[Panel], path: Path, *, against: str) -> None:
    """Draw one panel per metric, one row per run."""
    across = min(3, len(panels))
    down = -(-len(panels) // across)
    rows = max(len(panel.rows) for panel in panels)
    figure = Figure(figsize=(4.2 * across, (1.4 + 0.6 * rows) * down + 0.3), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for axis, panel in zip(axes, panels, strict=False):
        _draw(axis, panel)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    figure.suptitle(f"difference to {against} by case, mean with 95 % interval; red: real", fontsize=9)
    save(figure, path)


def _draw(axis: Axes, panel: Panel) -> None:
    rng = np.random.default_rng(0)
    axis.axvline(0, color="black", linewidth=0.8)
    for height, (values, mean, interval, real) in enumerate(panel.rows.values()):
        scatter = height + rng.uniform(-0.22, 0.22, len(values))
        axis.plot(values, scatter, ".", color=POINTS, markersize=3, alpha=0.6)
        colour = REAL if real else CHANCE
        if interval is not None:
            axis.plot(interval, (height, height), color=colour, linewidth=2.5)
        axis.plot(mean, height, "o", color=colour, markersize=5)
    axis.set_title(panel.title, fontsize=9)
    axis.set_yticks(range(len(panel.rows)), [_short(name) for name in panel.rows], fontsize=8)
    axis.set_ylim(len(panel.rows) - 0.5, -0.5)
    axis.tick_params(axis="x", labelsize=7)
    axis.grid(axis="x", alpha=0.3)


def _short(name: str, *, most: int = 22) -> str:
    return name if len(name) <= most else f"…{name[-most + 1 :]}"
