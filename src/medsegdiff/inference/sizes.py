"""Area or volume of structures, with intervals: what only members that are whole masks can tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from jaxtyping import Int

from medsegdiff.metrics.intervals import Stretch, interval_of
from medsegdiff.metrics.units import unit_of
from medsegdiff.types import Geometry


@dataclass(frozen=True)
class Size:
    """Area or volume of a structure."""

    mean: float
    """Of the members."""
    low: float
    """End of the 90 % interval."""
    high: float
    unit: str
    """``mL`` in volumes; ``px`` in pictures, or ``mm2`` where their spacing is known."""


def stated_sizes(
    counts: Int[np.ndarray, "m n"],
    structures: tuple[str, ...],
    geometry: Geometry,
    *,
    stretch: Mapping[str, Stretch] | None = None,
) -> dict[str, Size]:
    """State the size of each structure, calibrated where a stretch is known; nothing of a single member."""
    if len(counts) < 2:
        return {}
    (scale, unit), known = unit_of(geometry), stretch or {}
    pixels = prod(geometry.shape)
    intervals = (
        interval_of(of, known.get(name, Stretch()), pixels=pixels)
        for name, of in zip(structures, counts.T, strict=True)
    )
    return {
        name: Size(of.mean * scale, of.low * scale, of.high * scale, unit)
        for name, of in zip(structures, intervals, strict=True)
    }
