"""Plots of numbers: training curves, Dice against the number of members, paired differences. Drawn without a screen."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatter, MaxNLocator

from medsegdiff.fusion.curve import Curve, convergence
from medsegdiff.io.atomic import atomic_path
from medsegdiff.pictures.text import literal

REAL, CHANCE, POINTS = "#b2182b", "#4d4d4d", "#92b5d6"
"""Colours: of a real difference, of one that may be chance, of cases."""
MARGINS = {"left": 0.065, "right": 0.985, "bottom": 0.145, "top": 0.905, "wspace": 0.16}
"""Of the curves, which are drawn again and again: to have margins found takes twice as long as to draw."""


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically. Letters that the font lacks are drawn as boxes."""
    with atomic_path(path) as part, warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from", UserWarning)
        figure.savefig(part, dpi=120)


def training_curves(records: Sequence[Mapping[str, Any]]) -> Figure:
    """Plot loss and validation Dice against steps."""
    figure = Figure(figsize=(10, 3.6))
    left, right = figure.subplots(1, 2, gridspec_kw=MARGINS)
    training = [r for r in records if "loss" in r]
    for key, label in (("loss_noise", "diffusion (L_n)"), ("loss_anchor", "anchor")):
        _curve(left, training, key, "-", label=label, linewidth=1)
    left.set(xlabel="step", title="loss", yscale="log")
    left.yaxis.set_major_formatter("{x:g}")  # shorter than powers of ten
    left.yaxis.set_minor_formatter(LogFormatter())
    validation = [r for r in records if "dice" in r]
    for key, label in (("dice", "fused"), ("dice_member", "one member"), ("dice_anchor", "anchor")):
        _curve(right, validation, key, "o-", label=label, markersize=3)
    right.set(xlabel="step", title="validation Dice")
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    return figure


def _curve(axis: Axes, records: Sequence[Mapping[str, Any]], key: str, style: str, **options: Any) -> None:
    """Plot a number against steps, if the log has it: a network without an anchor tells nothing of one."""
    told = [record for record in records if key in record]
    if told or not records:
        axis.plot([record["step"] for record in told], [record[key] for record in told], style, **options)


def members_curves(curves: Mapping[str, Curve]) -> Figure:
    """Draw Dice against the number of members: the mean, a band of one standard deviation, a ring where it converges.

    Source: Wu et al. (2024), figure 3.
    """
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axis, lines = figure.subplots(), list[Line2D]()
    for number, curve in enumerate(curves.values()):
        colour = f"C{number % 10}"
        low, high = curve.mean - curve.spread, curve.mean + curve.spread
        axis.fill_between(curve.num_members, low, high, color=colour, alpha=0.2, linewidth=0)
        lines += axis.plot(curve.num_members, curve.mean, ".-", color=colour, markersize=4, linewidth=1.2)
        enough = convergence(curve)
        if enough is not None:
            axis.plot(
                [enough], curve.mean[curve.num_members == enough], "o", color=colour, markersize=10, fillstyle="none"
            )
    axis.set(xlabel="members", ylabel="mean Dice")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)
    axis.legend(lines, [literal(name) for name in curves], fontsize=8, loc="lower right")
    figure.suptitle("fused mask of n members; ring: the last ten changed Dice by less than 0.1 %", fontsize=9)
    return figure


@dataclass(frozen=True)
class Gain:
    """What a run gained over another in one metric."""

    values: Sequence[float]
    """By case."""
    mean: float
    interval: tuple[float, float] | None
    real: bool
    """Whether it is more than chance."""


def differences(panels: Mapping[str, Mapping[str, Gain]], *, against: str) -> Figure:
    """Draw a panel per metric, a row per run: every case as a point, the mean with its interval."""
    across = min(3, len(panels))
    down = -(-len(panels) // across)
    rows = max(len(of_runs) for of_runs in panels.values())
    figure = Figure(figsize=(4.2 * across, (1.4 + 0.6 * rows) * down + 0.3), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for axis, (metric, of_runs) in zip(axes, panels.items(), strict=False):
        _panel(axis, metric, of_runs)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    figure.suptitle(f"difference to {literal(against)} by case, mean with 95 % interval; red: real", fontsize=9)
    return figure


def _panel(axis: Axes, metric: str, of_runs: Mapping[str, Gain]) -> None:
    rng = np.random.default_rng(0)
    axis.axvline(0, color="black", linewidth=0.8)
    for height, gain in enumerate(of_runs.values()):
        scatter = height + rng.uniform(-0.22, 0.22, len(gain.values))
        axis.plot(gain.values, scatter, ".", color=POINTS, markersize=3, alpha=0.6)
        colour = REAL if gain.real else CHANCE
        if gain.interval is not None:
            axis.plot(gain.interval, (height, height), color=colour, linewidth=2.5)
        axis.plot(gain.mean, height, "o", color=colour, markersize=5)
    axis.set_title(literal(metric), fontsize=9)
    names = [literal(name, most=22) for name in of_runs]
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.tick_params(axis="x", labelsize=7)
    axis.grid(axis="x", alpha=0.3)
