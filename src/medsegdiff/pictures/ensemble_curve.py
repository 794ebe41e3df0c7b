"""The plot of Dice against the number of members: figure 3 of the paper."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medsegdiff.fusion.curve import Curve, convergence
from medsegdiff.pictures.figures import save


def draw_curves(curves: Mapping[str, Curve], path: Path) -> None:
    """Draw curves into one plot."""
    save(curves_plot(curves), path)


def curves_plot(curves: Mapping[str, Curve]) -> Figure:
    """Draw curves into one plot: the mean, a band of one standard deviation, and a ring where each converges.

    Source: Wu et al. (2024), figure 3.
    """
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axis = figure.subplots()
    for number, (name, curve) in enumerate(curves.items()):
        _draw(axis, name, curve, colour=f"C{number % 10}")
    axis.set(xlabel="members", ylabel="mean Dice")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="lower right")
    figure.suptitle("fused mask of n members; ring: the last ten changed Dice by less than 0.1 %", fontsize=9)
    return figure


def _draw(axis: Axes, name: str, curve: Curve, *, colour: str) -> None:
    low, high = curve.mean - curve.spread, curve.mean + curve.spread
    axis.fill_between(curve.num_members, low, high, color=colour, alpha=0.2, linewidth=0)
    axis.plot(curve.num_members, curve.mean, ".-", color=colour, markersize=4, linewidth=1.2, label=name)
    enough = convergence(curve)
    if enough is not None:
        height = curve.mean[curve.num_members == enough]
        axis.plot([enough], height, "o", color=colour, markersize=10, fillstyle="none")
