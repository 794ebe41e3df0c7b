"""Overlap of masks: Dice, IoU, sensitivity, specificity, precision, error of volume; all from one count of pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from medsegdiff.metrics.base import METRICS, Empty, check_shapes

SHARE = Empty(no_reference=0.0, no_prediction=0.0, both=1.0)
"""Of most shares: nothing is found, or nothing was there to be found."""


@dataclass(frozen=True)
class Counts:
    """How many pixels are in each of two masks, and in both."""

    prediction: int
    reference: int
    both: int
    total: int
    """Pixels of the grid that count."""

    @classmethod
    def of(
        cls, prediction: Bool[np.ndarray, "*s"], reference: Bool[np.ndarray, "*s"], *, total: int | None = None
    ) -> Counts:
        """Count.

        Args:
            prediction: Predicted mask.
            reference: Reference mask.
            total: Pixels that count, those of both masks among them; ``None``: all of the grid.

        Returns:
            The counts.
        """
        check_shapes(prediction=prediction, reference=reference)
        masks = (prediction, reference, prediction & reference)
        p, r, both = (int(np.count_nonzero(mask)) for mask in masks)
        return cls(p, r, both, prediction.size if total is None else total)


@dataclass(frozen=True)
class Overlap:
    """A metric of overlap: what it makes of the counts of two masks. Spacing makes no difference to it."""

    name: str
    formula: Callable[[Counts], float]
    """Where neither mask is empty."""
    empty: Empty | None
    """``None``: the formula holds for empty masks too."""
    definition: str
    """With the values for empty masks."""
    better: str = "higher"
    """Or ``lower``."""

    def __call__(
        self,
        prediction: Bool[np.ndarray, "*s"],
        reference: Bool[np.ndarray, "*s"],
        *,
        spacing: tuple[float, ...] = (),
        empty: Empty | None = None,
    ) -> float:
        """Compute the metric of two masks.

        Args:
            prediction: Predicted mask.
            reference: Reference mask.
            spacing: Makes no difference: all pixels are equally large.
            empty: Values for empty masks; ``None`` takes the metric's own.

        Returns:
            The value.

        Example:
            >>> dice(np.array([True, True]), np.array([True, False]))
            0.6666666666666666
        """
        return self.of(Counts.of(prediction, reference), empty=empty)

    def of(self, counts: Counts, *, empty: Empty | None = None) -> float:
        """Compute the metric of counts.

        Args:
            counts: Of two masks.
            empty: Values for empty masks; ``None`` takes the metric's own.

        Returns:
            The value.
        """
        table = empty or self.empty
        if table is None or (counts.prediction and counts.reference):
            return float(self.formula(counts))
        return table.value(prediction=counts.prediction > 0, reference=counts.reference > 0)


def _specificity(c: Counts) -> float:
    outside = c.total - c.reference
    return 1 - (c.prediction - c.both) / outside if outside else 1.0


dice = Overlap(
    "dice",
    lambda c: 2 * c.both / (c.prediction + c.reference),
    SHARE,
    "2|P∩R| / (|P|+|R|); no reference 0, no prediction 0, both empty 1.",
)
"""Source: Dice (1945)."""
iou = Overlap(
    "iou",
    lambda c: c.both / (c.prediction + c.reference - c.both),
    SHARE,
    "|P∩R| / |P∪R|; no reference 0, no prediction 0, both empty 1.",
)
"""Dice / (2 − Dice) in each case, and never below that on average over cases.

Source: Jaccard (1912).
"""
sensitivity = Overlap(
    "sensitivity",
    lambda c: c.both / c.reference,
    SHARE,
    "|P∩R| / |R|; no reference 0, no prediction 0, both empty 1.",
)
"""Also called recall."""
specificity = Overlap(
    "specificity",
    _specificity,
    None,
    "Share of what is outside of R that is outside of P; no reference by the same formula, no prediction 1, "
    "both empty 1; nothing outside of R 1.",
)
"""It depends on how much background the picture shows: in most pictures it is close to 1."""
precision = Overlap(
    "precision",
    lambda c: c.both / c.prediction,
    SHARE,
    "|P∩R| / |P|; no reference 0, no prediction 0, both empty 1.",
)
volume_error = Overlap(
    "volume_error",
    lambda c: abs(100 * (c.prediction - c.reference) / c.reference),
    Empty(no_reference=100.0, no_prediction=100.0, both=0.0),
    "100 ||P|−|R|| / |R| in %; no reference 100, no prediction 100, both empty 0.",
    better="lower",
)
"""Without bound where the prediction is much too large.

Source: Heimann et al. (2009), doi:10.1109/TMI.2009.2013851.
"""
OVERLAPS = (dice, iou, sensitivity, specificity, precision, volume_error)

for _overlap in OVERLAPS:
    METRICS.register(_overlap.name, better=_overlap.better, definition=_overlap.definition)(_overlap)


def overlap_scores(
    prediction: Bool[np.ndarray, "*s"],
    reference: Bool[np.ndarray, "*s"],
    *,
    total: int | None = None,
    empty: Mapping[str, Empty] | None = None,
) -> dict[str, float]:
    """Compute all metrics of overlap from one count.

    Args:
        prediction: Predicted mask.
        reference: Reference mask.
        total: Pixels that count, those of both masks among them; ``None``: all of the grid.
        empty: Values for empty masks by metric; those not named keep their own.

    Returns:
        By metric, equal to those of `OVERLAPS` alone.
    """
    counts, tables = Counts.of(prediction, reference, total=total), empty or {}
    return {of.name: of.of(counts, empty=tables.get(of.name)) for of in OVERLAPS}
