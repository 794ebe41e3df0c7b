"""Distances between the borders of masks: HD95, average distance, share within a tolerance."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from medsegdiff.metrics.base import METRICS, SLACK, Empty, check_shapes
from medsegdiff.metrics.borders import border_distances

TOLERANCE = 1.0
"""Distance that NSD forgives unless told otherwise: 1 mm, or 1 pixel for pictures."""


@dataclass(frozen=True)
class Distances:
    """Distances between two borders, each border pixel counted once."""

    there: Float[np.ndarray, " n"]
    """From each border pixel of the prediction to the border of the reference."""
    back: Float[np.ndarray, " m"]
    """From each border pixel of the reference to the border of the prediction."""

    def hd95(self) -> float:
        """Take the larger of the two directed 95th percentiles, in the unit of the spacing."""
        return float(max(np.percentile(self.there, 95), np.percentile(self.back, 95)))

    def assd(self) -> float:
        """Average over the border pixels of both masks together, in the unit of the spacing."""
        return float((self.there.sum() + self.back.sum()) / (self.there.size + self.back.size))

    def nsd(self, tolerance: float) -> float:
        """Compute the share of border pixels, of both masks together, that the other border is near to."""
        limit = tolerance * (1 + SLACK)
        near = np.count_nonzero(self.there <= limit) + np.count_nonzero(self.back <= limit)
        return float(near / (self.there.size + self.back.size))


@dataclass(frozen=True)
class Surface:
    """A metric of surfaces: what it makes of the distances between two borders."""

    name: str
    formula: Callable[[Distances, float], float]
    """Of the distances and the tolerance."""
    empty: Callable[[float], Empty]
    """Values for empty masks on a grid with this diagonal: the distance charged where a mask is missing."""
    definition: str
    """With the values for empty masks."""
    better: str = "lower"
    """Or ``higher``."""

    def __call__(
        self,
        prediction: Bool[np.ndarray, "*s"],
        reference: Bool[np.ndarray, "*s"],
        *,
        spacing: tuple[float, ...],
        empty: Empty | None = None,
        tolerance: float = TOLERANCE,
    ) -> float:
        """Compute the metric of two masks.

        Args:
            prediction: Predicted mask.
            reference: Reference mask.
            spacing: Size of a pixel by array axis, in mm (or 1 for pixels).
            empty: Values for empty masks; ``None`` takes the metric's own.
            tolerance: Of NSD: the largest distance that is near, in the unit of the spacing.

        Returns:
            In the unit of the spacing; NSD in [0, 1].
        """
        tables = {} if empty is None else {self.name: empty}
        return _scores((self,), prediction, reference, spacing, None, tolerance, tables)[self.name]


def _missing(diagonal: float) -> Empty:
    return Empty(no_reference=diagonal, no_prediction=diagonal, both=0.0)


hd95 = Surface(
    "hd95",
    lambda distances, _: distances.hd95(),
    _missing,
    "Larger of the two directed 95th percentiles of border distances, in pixels for pictures; no reference "
    "or no prediction: diagonal of the grid; both empty 0.",
)
"""Percentiles interpolate linearly between border pixels, each counted once. (Some packages pool both directions, or
weigh border pixels by their area: their numbers differ.)

Source: Huttenlocher et al. (1993), with percentiles.
"""
assd = Surface(
    "assd",
    lambda distances, _: distances.assd(),
    _missing,
    "Mean distance to the other border over the border pixels of both masks pooled, in pixels for pictures; "
    "no reference or no prediction: diagonal of the grid; both empty 0.",
)
r"""Average symmetric surface distance,
:math:`\left(\sum_{p \in \partial P} d(p, \partial R) + \sum_{r \in \partial R} d(r, \partial P)\right) /
(|\partial P| + |\partial R|)`. (The mean of the two directed means gives the smaller border as much weight as the
larger: its numbers differ.)

Source: Heimann et al. (2009), doi:10.1109/TMI.2009.2013851.
"""
nsd = Surface(
    "nsd",
    lambda distances, tolerance: distances.nsd(tolerance),
    lambda _: Empty(no_reference=0.0, no_prediction=0.0, both=1.0),
    "Share of the border pixels of both masks pooled that are within the tolerance (1 mm, 1 pixel for "
    "pictures) of the other border; no reference 0, no prediction 0, both empty 1.",
    better="higher",
)
r"""Normalised surface distance, also called surface Dice, at a tolerance :math:`\tau`:
:math:`\left(|\{p \in \partial P: d(p, \partial R) \le \tau\}| + |\{r \in \partial R: d(r, \partial P) \le
\tau\}|\right) / (|\partial P| + |\partial R|)`. (DeepMind's ``surface-distance`` puts the border between pixels and
weighs its elements by their area: where the surface is oblique or pixels are anisotropic, its numbers differ.)

Source: Nikolov et al. (2018), arXiv:1809.04430, with pixels for surface elements.
"""
SURFACES = (hd95, assd, nsd)

for _surface in SURFACES:
    METRICS.register(_surface.name, better=_surface.better, definition=_surface.definition)(_surface)


def surface_scores(
    prediction: Bool[np.ndarray, "*s"],
    reference: Bool[np.ndarray, "*s"],
    *,
    spacing: tuple[float, ...],
    axes: Float[np.ndarray, "w w"] | None = None,
    tolerance: float = TOLERANCE,
    empty: Mapping[str, Empty] | None = None,
) -> dict[str, float]:
    """Compute all metrics of surfaces from one computation of distances.

    Args:
        prediction: Predicted mask.
        reference: Reference mask.
        spacing: Size of a pixel by array axis, in mm (or 1 for pixels).
        axes: Those of a sheared grid: see `medsegdiff.metrics.units.sheared_axes`.
        tolerance: Of NSD, in the unit of the spacing.
        empty: Values for empty masks by metric; those not named keep their own.

    Returns:
        By metric, equal to those of `SURFACES` alone.
    """
    return _scores(SURFACES, prediction, reference, spacing, axes, tolerance, empty or {})


def _scores(
    surfaces: tuple[Surface, ...],
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing: tuple[float, ...],
    axes: np.ndarray | None,
    tolerance: float,
    empty: Mapping[str, Empty],
) -> dict[str, float]:
    check_shapes(prediction=prediction, reference=reference)
    holds = {"prediction": bool(prediction.any()), "reference": bool(reference.any())}
    if all(holds.values()):
        distances = Distances(*border_distances(prediction, reference, spacing=spacing, axes=axes))
        return {of.name: of.formula(distances, tolerance) for of in surfaces}
    sides = [n * s for n, s in zip(prediction.shape, spacing, strict=True)]
    diagonal = math.hypot(*(side for side, n in zip(sides, prediction.shape, strict=True) if n > 1)) or sides[0]
    return {of.name: (empty.get(of.name) or of.empty(diagonal)).value(**holds) for of in surfaces}
