"""Cases as rows of small pictures: an image beside masks, or contours on it, and the uncertainty."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from medsegdiff.config.data import DataConfig
from medsegdiff.data.dataset import CaseFiles
from medsegdiff.data.mask_folder import mask_folder
from medsegdiff.data.masks import Masks
from medsegdiff.data.open import list_cases
from medsegdiff.data.slicing import Slicing
from medsegdiff.data.split import evenly
from medsegdiff.io.image import read_image
from medsegdiff.io.listing import folders_in
from medsegdiff.io.names import class_folders
from medsegdiff.io.raster import read_map
from medsegdiff.labels import Labels
from medsegdiff.pictures.curves import save
from medsegdiff.pictures.overlay import COLOURS, colour_of, coloured, outlined, overlay, panel_size, plain, to_rgb
from medsegdiff.pictures.text import literal

WHITE, BLACK = (255, 255, 255), (0, 0, 0)
"""Colours of the reference beside the prediction, on dark images and on bright ones."""
EDGE, GAP, BETWEEN, WORDS = 0.25, 0.06, 0.3, 0.04
"""Inches around panels, between two, between rows, where notes and titles stand, and from these to their panel."""


@dataclass(frozen=True)
class CaseRow:
    """A case, or a slice of one. Masks are 0 and 1 by structure (k h w)."""

    name: str
    image: Float[np.ndarray, "c h w"] | None
    raters: Sequence[np.ndarray]
    """None where there is no reference."""
    fused: np.ndarray
    uncertainty: Float[np.ndarray, "h w"] | None = None
    """In bits."""
    members: Sequence[np.ndarray] = ()
    anchor: np.ndarray | None = None
    """``None`` from a network that has no anchor."""
    spacing: tuple[float, float] = (1.0, 1.0)
    """Of the pixels, height and width."""
    note: str = ""
    """Its Dice, or which slice it is."""


@dataclass(frozen=True)
class Panel:
    """A small picture."""

    pixels: UInt8[np.ndarray, "h w 3"]
    title: str = ""
    note: str = ""


def _filled(row: CaseRow, *, max_members: int = 4) -> list[Panel]:
    """Draw image, reference, members, fused mask, uncertainty, and the anchor where there is one.

    Of several raters, the reference is as bright as the share of them that drew a pixel.
    """
    reference = np.mean(row.raters, axis=0) if len(row.raters) else np.zeros(row.fused.shape)
    panels = [] if row.image is None else [Panel(to_rgb(row.image).astype(np.uint8), "image")]
    panels += [Panel(painted(reference), "reference")]
    panels += [Panel(painted(mask), f"member {i + 1}") for i, mask in enumerate(row.members[:max_members])]
    panels += [Panel(painted(row.fused), "fused", row.note)]
    panels += [] if row.uncertainty is None else [Panel(coloured(row.uncertainty), "uncertainty")]
    return panels + ([] if row.anchor is None else [Panel(painted(row.anchor), "anchor")])


def painted(masks: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    """Show masks as one picture: a single structure in white, several in colours."""
    picture = np.zeros((*masks.shape[1:], 3))
    for index, mask in enumerate(masks):
        weight = mask[..., None].astype(float)
        picture = (1 - weight) * picture + weight * (WHITE if len(masks) == 1 else COLOURS[index % len(COLOURS)])
    return picture.round().astype(np.uint8)


def contours(row: CaseRow) -> list[Panel]:
    """Draw the image, the raters' contours, the fused mask's with the reference, and the uncertainty."""
    size = panel_size(row.fused.shape[1:], row.spacing)
    ground = np.zeros((*size, 3), np.uint8) if row.image is None else plain(row.image, size)
    panels = [] if row.image is None else [Panel(ground, "image", row.note)]
    panels += [_raters(row, ground), _fused(row, ground)]
    if row.uncertainty is not None:
        shown = coloured(row.uncertainty, size)
        panels.append(Panel(shown, "uncertainty", "entropy of the probability, bright: 1 bit"))
    return panels


def _raters(row: CaseRow, ground: np.ndarray) -> Panel:
    """Draw each rater in a colour; of several structures, each structure."""
    several = len(row.fused) > 1
    drawn = [
        (rater[index], index if several else number + 1)
        for index in range(len(row.fused))
        for number, rater in enumerate(row.raters)
    ]
    pixels = outlined(ground, [mask for mask, _ in drawn], [colour_of(shade) for _, shade in drawn])
    if len(row.raters) == 1:
        return Panel(pixels, "reference", "reference")
    return Panel(pixels, "raters", f"{len(row.raters)} raters")


def _fused(row: CaseRow, ground: np.ndarray) -> Panel:
    """Draw the prediction, and the reference with gaps; it comes first, so that its dashes are on top."""
    count = len(row.fused)
    majority = 2 * np.sum(row.raters, axis=0, dtype=np.uint16) >= len(row.raters)  # a tie is foreground
    colours = [WHITE if ground.mean() < 128 else BLACK] * count + [colour_of(index) for index in range(count)]
    gaps = [True] * count + [False] * count
    pixels = outlined(ground, list(np.concatenate([majority, row.fused.astype(bool)])), colours, dashed=gaps)
    dashed = "majority" if len(row.raters) > 1 else "reference"
    return Panel(pixels, "prediction", f"prediction; {dashed} dashed")


def case_grid(rows: Sequence[CaseRow], *, max_members: int = 4) -> Figure:
    """Draw cases below each other, with what they have in common in one column."""
    panels = [{panel.title: panel for panel in _filled(row, max_members=max_members)} for row in rows]
    titles = sorted(set().union(*panels), key=_place)
    columns = [[replace(of_row[title], title="") if title in of_row else None for title in titles] for of_row in panels]
    return _grid(columns, heads=titles, names=[row.name[:18] for row in rows], size=(1.45, 1.6))


def _place(title: str) -> tuple[int, int]:
    """Tell where a column of `filled` stands."""
    kind, _, number = title.partition(" ")
    return ("image", "reference", "member", "fused", "uncertainty", "anchor").index(kind), int(number or 0)


def preview(cases: Sequence[CaseFiles], masks: Masks, path: Path, *, most: int = 20, across: int = 5) -> None:
    """Draw images with the contours of their masks, evenly chosen, to see whether they belong together."""
    if not cases:
        return
    chosen = evenly(cases, most)
    panels = [Panel(_outlined(case, masks), case.name[:24]) for case in chosen]
    rows = [panels[start : start + across] for start in range(0, len(panels), across)]
    save(_grid(rows, size=(2.2, 2.4)), path)


def _outlined(case: CaseFiles, masks: Masks) -> np.ndarray:
    """Draw every mask file in its own colour; of class indices, every class."""
    pixels, geometry = read_image(case.images[0])
    values = [masks.reader.values(path) for path in masks.files(case.name)]
    layers = [v == c for v in values if v.shape == geometry.shape for c in np.unique(v) if c > 0]
    drawn = np.array(layers, dtype=np.uint8).reshape(-1, *geometry.shape)
    if pixels.ndim == 3:
        return overlay(pixels, drawn)
    slicing = Slicing.of(geometry)
    most = slicing.where(drawn)
    return overlay(slicing.cut(pixels, most), slicing.cut(drawn, most))


def saved_rows(
    segmented: Path, data: Path, notes: Mapping[str, str], *, config: DataConfig | None = None
) -> list[CaseRow]:
    """Read cases back as rows of pictures."""
    listing = list_cases(data, config or DataConfig())
    reference = listing.masks
    values = reference.values()
    labels = reference.labels(values, classes=None if config is None else config.classes)
    anchor = segmented / "anchor"
    members = folders_in(segmented / "members") if (segmented / "members").is_dir() else []
    return [
        CaseRow(
            name=name,
            image=read_image(listing.cases[name].images[0])[0],
            raters=list(reference.read(name, labels)[:, labels.foreground]),
            members=[_masks(folder, name, labels, known=listing.cases) for folder in members],
            fused=_masks(segmented, name, labels, known=listing.cases),
            anchor=_masks(anchor, name, labels, known=listing.cases) if anchor.is_dir() else None,
            uncertainty=read_map(segmented / "uncertainty" / f"{name}.png"),
            note=note,
        )
        for name, note in notes.items()
    ]


def _masks(folder: Path, name: str, labels: Labels, *, known: Collection[str]) -> np.ndarray:
    """Read the foreground masks of a case (k h w), one per structure, in the order of the classes."""
    found = mask_folder(folder / "masks", kind="structures", names=known)
    if found.kind == "structures":
        found = found.ordered(class_folders(labels.structures))
    return np.stack([found.reader.values(path) > 0 for path in found.files(name)])


def _grid(
    rows: Sequence[Sequence[Panel | None]],
    *,
    heads: Sequence[str] = (),
    names: Sequence[str] = (),
    size: tuple[float, float],
) -> Figure:
    """Lay panels out, of a width and height in inches; on one axis, since each takes as long as drawing a panel."""
    across, (wide, high) = max(map(len, rows)), size
    width, height = wide * across + EDGE, high * len(rows) - BETWEEN + 2 * EDGE
    figure = Figure(figsize=(width, height))
    axis = figure.add_axes((0, 0, 1, 1))
    for down, row in enumerate(rows):
        for place, panel in enumerate(row):
            if panel is not None:
                middle = EDGE + wide * place + (wide - GAP) / 2, height - EDGE - high * down - (high - BETWEEN) / 2
                _draw(axis, panel, middle, (wide - GAP, high - BETWEEN))
    for place, head in enumerate(heads):
        axis.text(EDGE + wide * place + (wide - GAP) / 2, height - EDGE + WORDS, head, ha="center", fontsize=9)
    for down, name in enumerate(names):
        beside = height - EDGE - high * down - (high - BETWEEN) / 2
        axis.text(EDGE - WORDS, beside, literal(name), rotation=90, ha="right", va="center", fontsize=7)
    axis.set(xlim=(0, width), ylim=(0, height))  # inches
    axis.set_axis_off()
    return figure


def _draw(axis: Axes, panel: Panel, middle: tuple[float, float], room: tuple[float, float]) -> None:
    """Draw a panel as large as there is room, its title above and its note below."""
    h, w = panel.pixels.shape[:2]
    scale = min(room[0] / w, room[1] / h) / 2
    (x, y), across, down = middle, w * scale, h * scale
    axis.imshow(panel.pixels, extent=(x - across, x + across, y - down, y + down), aspect="auto")
    axis.add_patch(Rectangle((x - across, y - down), 2 * across, 2 * down, fill=False, linewidth=0.6))
    for words, at, side in ((panel.title, y + down + WORDS, "bottom"), (panel.note, y - down - WORDS, "top")):
        if words:
            axis.text(x, at, literal(words), ha="center", va=side, fontsize=7)
