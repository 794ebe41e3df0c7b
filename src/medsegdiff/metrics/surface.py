"""Distances between the borders of masks: HD95, average distance, share within a tolerance."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from medsegdiff.metrics.base import METRICS, Empty, check_masks, value_if_empty
from medsegdiff.metrics.borders import border_distances

TOLERANCE = 1.0
"""Distance that NSD forgives unless told otherwise: 1 mm, or 1 pixel for pictures."""
SLACK = 1e-6
"""Relative error of floating-point distances: ten pixels of 0.7 mm are within 7 mm."""


@dataclass(frozen=True)
class Distances:
    """Distances between two borders, each border pixel counted once."""

    there: Float[np.ndarray, " n"]
    """From each border pixel of the prediction to the border of the reference."""
    back: Float[np.ndarray, " m"]
    """From each border pixel of the reference to the border of the prediction."""

    def hd95(self) -> float:
        """Take the larger of the two directed 95th percentiles.

        Returns:
            In the unit of the spacing.
        """
        return float(max(np.percentile(self.there, 95), np.percentile(self.back, 95)))

    def assd(self) -> float:
        """Average over the border pixels of both masks together.

        Returns:
            In the unit of the spacing.
        """
        return float((self.there.sum() + self.back.sum()) / (self.there.size + self.back.size))

    def nsd(self, tolerance: float = TOLERANCE) -> float:
        """Compute the share of border pixels, of both masks together, that the other border is near to.

        Args:
            tolerance: The largest distance that is near, in the unit of the spacing.

        Returns:
            In [0, 1].
        """
        limit = tolerance * (1 + SLACK)
        near = np.count_nonzero(self.there <= limit) + np.count_nonzero(self.back <= limit)
        return float(near / (self.there.size + self.back.size))


def diagonal(shape: tuple[int, ...], spacing: tuple[float, ...]) -> float:
    """Measure the grid from corner to corner: the distance charged where a mask is missing.

    Args:
        shape: Of the grid.
        spacing: Size of a pixel by array axis.

    Returns:
        In the unit of the spacing.
    """
    return math.dist([0.0] * len(shape), [n * s for n, s in zip(shape, spacing, strict=True)])


def surface_scores(
    prediction: Bool[np.ndarray, "*s"],
    reference: Bool[np.ndarray, "*s"],
    *,
    spacing: tuple[float, ...],
    tolerance: float = TOLERANCE,
    empty: Mapping[str, Empty] | None = None,
) -> dict[str, float]:
    """Compute all metrics of surfaces from one computation of distances.

    Args:
        prediction: Predicted mask.
        reference: Reference mask.
        spacing: Size of a pixel by array axis, in mm (or 1 for pixels).
        tolerance: Of NSD, in the unit of the spacing.
        empty: Values for empty masks by metric; those not named keep their own.

    Returns:
        ``hd95``, ``assd`` and ``nsd``, equal to those of the functions of these names.
    """
    check_masks(prediction, reference)
    tables = _tables(prediction.shape, spacing) | dict(empty or {})
    values = {name: value_if_empty(prediction, reference, tables[name]) for name in ("hd95", "assd", "nsd")}
    told = {name: value for name, value in values.items() if value is not None}
    if told:
        return told
    distances = Distances(*border_distances(prediction, reference, spacing=spacing))
    return {"hd95": distances.hd95(), "assd": distances.assd(), "nsd": distances.nsd(tolerance)}


def _tables(shape: tuple[int, ...], spacing: tuple[float, ...]) -> dict[str, Empty]:
    """Say what the metrics give for empty masks on this grid."""
    worst = diagonal(shape, spacing)
    distance = Empty(no_reference=worst, no_prediction=worst, both=0.0)
    return {"hd95": distance, "assd": distance, "nsd": Empty(no_reference=0.0, no_prediction=0.0, both=1.0)}


@METRICS.register(
    "hd95",
    better="lower",
    definition="Larger of the two directed 95th percentiles of border distances, in pixels for pictures; no reference "
    "or no prediction: diagonal of the grid; both empty 0.",
)
def hd95(
    prediction: Bool[np.ndarray, "*s"],
    reference: Bool[np.ndarray, "*s"],
    *,
    spacing: tuple[float, ...],
    empty: Empty | None = None,
) -> float:
    """Compute the 95th percentile Hausdorff distance: the larger of the two directed 95th percentiles.

    Percentiles interpolate linearly between border pixels, each counted once. (Some packages pool both
    directions, or weigh border pixels by their area: their numbers differ.)

    Source: Huttenlocher et al. (1993), with percentiles.

    Args:
        prediction: Predicted mask.
        reference: Reference mask.
        spacing: Size of a pixel by array axis, in mm (or 1 for pixels).
        empty: Values for empty masks; ``None``: the diagonal of the grid, and 0 for both empty.

    Returns:
        In the unit of the spacing.
    """
    return _single(prediction, reference, Distances.hd95, empty or _tables(prediction.shape, spacing)["hd95"], spacing)


@METRICS.register(
    "assd",
    better="lower",
    definition="Mean distance to the other border over the border pixels of both masks pooled, in pixels for pictures; "
    "no reference or no prediction: diagonal of the grid; both empty 0.",
)
def assd(
    prediction: Bool[np.ndarray, "*s"],
    reference: Bool[np.ndarray, "*s"],
    *,
    spacing: tuple[float, ...],
    empty: Empty | None = None,
) -> float:
    r"""Compute the average symmetric surface distance.

    :math:`\left(\sum_{p \in \partial P} d(p, \partial R) + \sum_{r \in \partial R} d(r, \partial P)\right) /
    (|\partial P| + |\partial R|)`: border pixels of both masks are pooled, each counted once. (The mean of the two
    directed means gives the smaller border as much weight as the larger: its numbers differ.)

    Source: Heimann et al. (2009), doi:10.1109/TMI.2009.2013851.

    Args:
        prediction: Predicted mask.
        reference: Reference mask.
        spacing: Size of a pixel by array axis, in mm (or 1 for pixels).
        empty: Values for empty masks; ``None``: the diagonal of the grid, and 0 for both empty.

    Returns:
        In the unit of the spacing.
    """
    return _single(prediction, reference, Distances.assd, empty or _tables(prediction.shape, spacing)["assd"], spacing)


@METRICS.register(
    "nsd",
    better="higher",
    definition="Share of the border pixels of both masks pooled that are within the tolerance (1 mm, 1 pixel for "
    "pictures) of the other border; no reference 0, no prediction 0, both empty 1.",
)
def nsd(
    prediction: Bool[np.ndarray, "*s"],
    reference: Bool[np.ndarray, "*s"],
    *,
    spacing: tuple[float, ...],
    empty: Empty | None = None,
    tolerance: float = TOLERANCE,
) -> float:
    r"""Compute the normalised surface distance, also called surface Dice, at a tolerance :math:`\tau`.

    :math:`\left(|\{p \in \partial P: d(p, \partial R) \le \tau\}| + |\{r \in \partial R: d(r, \partial P) \le
    \tau\}|\right) / (|\partial P| + |\partial R|)`. Border pixels are counted once each. (DeepMind's
    ``surface-distance`` puts the border between pixels and weighs its elements by their area: where the surface
    is oblique or pixels are anisotropic, its numbers differ.)

    Source: Nikolov et al. (2018), arXiv:1809.04430, with pixels for surface elements.

    Args:
        prediction: Predicted mask.
        reference: Reference mask.
        spacing: Size of a pixel by array axis, in mm (or 1 for pixels).
        empty: Values for empty masks; ``None``: 0, 0, and 1 for both empty.
        tolerance: The largest distance that is near, in the unit of the spacing.

    Returns:
        In [0, 1].
    """
    table = empty or _tables(prediction.shape, spacing)["nsd"]
    return _single(prediction, reference, lambda distances: distances.nsd(tolerance), table, spacing)


def _single(
    prediction: np.ndarray,
    reference: np.ndarray,
    of: Callable[[Distances], float],
    empty: Empty,
    spacing: tuple[float, ...],
) -> float:
    """Compute one metric of the distances between two masks, if there are such."""
    check_masks(prediction, reference)
    value = value_if_empty(prediction, reference, empty)
    return of(Distances(*border_distances(prediction, reference, spacing=spacing))) if value is None else value
