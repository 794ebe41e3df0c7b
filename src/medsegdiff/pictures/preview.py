"""A sheet of images with the contours of their masks, to see at a glance whether they belong together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from medsegdiff.data.listing import CaseFiles
from medsegdiff.data.masks import Masks
from medsegdiff.data.planes import middle_of
from medsegdiff.io.image import read_image
from medsegdiff.pictures.figures import save
from medsegdiff.pictures.overlay import overlay


def preview(cases: Sequence[CaseFiles], masks: Masks, path: Path, *, most: int = 20) -> None:
    """Draw cases, evenly chosen."""
    if not cases:
        return
    chosen = [cases[i] for i in np.linspace(0, len(cases) - 1, min(most, len(cases))).round().astype(int)]
    columns = min(5, len(chosen))
    rows = math.ceil(len(chosen) / columns)
    figure = Figure(figsize=(2.2 * columns, 2.4 * rows), layout="constrained")
    for axis, case in zip(
        figure.subplots(rows, columns, squeeze=False).flat, [*chosen, *[None] * columns], strict=False
    ):
        axis.set_axis_off()
        if case is not None:
            axis.imshow(_drawn(case, masks))
            axis.set_title(case.name[:24], fontsize=7)
    save(figure, path)


def _drawn(case: CaseFiles, masks: Masks) -> np.ndarray:
    """Draw every mask file in its own colour; of class indices, every class."""
    pixels, geometry = read_image(case.images[0])
    values = [masks.reader.values(path) for path in masks.files(case.name)]
    layers = [v == c for v in values if v.shape == geometry.shape for c in np.unique(v) if c > 0]
    drawn = np.array(layers, dtype=np.uint8).reshape(-1, *geometry.shape)
    if pixels.ndim == 3:
        return overlay(pixels, drawn)
    held = drawn if drawn.any() else None
    return overlay(middle_of(pixels, geometry, held), middle_of(drawn, geometry, held))
