"""Figures: rows of cases, training curves. Drawn without a screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medsegdiff.io.atomic import atomic_path
from medsegdiff.pictures.overlay import COLOURS, to_rgb


@dataclass(frozen=True)
class CaseRow:
    """One case as a row of pictures. Masks are 0 … 1 by structure (k h w)."""

    name: str
    image: Float[np.ndarray, "c h w"]
    reference: np.ndarray | None
    """The mean over raters, if there is a reference."""
    members: Sequence[np.ndarray]
    fused: np.ndarray
    anchor: np.ndarray | None
    """``None`` from a network that has no anchor."""
    uncertainty: Float[np.ndarray, "h w"]
    note: str = ""
    """Said under the fused mask: its Dice, say."""


def case_grid(rows: Sequence[CaseRow], path: Path, *, max_members: int = 4) -> None:
    """Draw cases: image, reference, members, fused mask, uncertainty, and the anchor where there is one."""
    num_members = min(max_members, max(len(row.members) for row in rows))
    titles = ["image", "reference", *(f"member {i + 1}" for i in range(num_members)), "fused", "uncertainty"]
    titles += ["anchor"] if any(row.anchor is not None for row in rows) else []
    figure = Figure(figsize=(1.45 * len(titles), 1.6 * len(rows) + 0.3), layout="constrained")
    grid = figure.subplots(len(rows), len(titles), squeeze=False)
    for axes, row in zip(grid, rows, strict=True):
        _draw_row(list(axes), row, num_members)
    for axis, title in zip(grid[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    save(figure, path)


def _draw_row(axes: Sequence[Axes], row: CaseRow, num_members: int) -> None:
    blank = np.zeros_like(row.fused)
    masks = [blank if row.reference is None else row.reference, *row.members[:num_members], row.fused]
    pictures = [to_rgb(row.image) / 255, *(colour(mask) for mask in masks)]
    for axis, picture in zip(axes, pictures, strict=False):
        axis.imshow(picture, vmin=0, vmax=1)
    fused, uncertainty = axes[num_members + 2 : num_members + 4]
    uncertainty.imshow(row.uncertainty, cmap="magma", vmin=0, vmax=1)
    if row.anchor is not None:
        axes[num_members + 4].imshow(colour(row.anchor), vmin=0, vmax=1)
    for axis in axes:
        axis.set(xticks=[], yticks=[])
    axes[0].set_ylabel(row.name[:18], fontsize=7)
    fused.set_xlabel(row.note, fontsize=7)


def colour(masks: np.ndarray) -> Float[np.ndarray, "h w 3"]:
    """Show masks as one picture: a single structure in white, several in colours."""
    if len(masks) == 1:
        return np.repeat(masks[0][..., None].astype(float), 3, axis=-1)
    picture = np.zeros((*masks.shape[1:], 3))
    for index, mask in enumerate(masks):
        weight = mask[..., None].astype(float)
        picture = (1 - weight) * picture + weight * COLOURS[index % len(COLOURS)] / 255
    return picture


def training_curves(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Plot loss and validation Dice against steps."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    training = [r for r in records if "loss" in r]
    for key, label in (("loss_noise", "diffusion (L_n)"), ("loss_anchor", "anchor")):
        _curve(left, training, key, "-", label=label, linewidth=1)
    left.set(xlabel="step", title="loss", yscale="log")
    validation = [r for r in records if "dice" in r]
    for key, label in (("dice", "fused"), ("dice_member", "one member"), ("dice_anchor", "anchor")):
        _curve(right, validation, key, "o-", label=label, markersize=3)
    right.set(xlabel="step", title="validation Dice")
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    save(figure, path)


def _curve(axis: Axes, records: Sequence[Mapping[str, Any]], key: str, style: str, **options: Any) -> None:
    """Plot a number against steps, if the log has it: a network without an anchor tells nothing of one."""
    told = [record for record in records if key in record]
    if told or not records:
        axis.plot([record["step"] for record in told], [record[key] for record in told], style, **options)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically."""
    with atomic_path(path) as part:
        figure.savefig(part, dpi=120)
