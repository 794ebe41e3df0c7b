"""The numbers of pixels in two masks and in both, from which every metric of overlap follows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from medsegdiff.metrics.base import Empty, check_masks


@dataclass(frozen=True)
class Counts:
    """How many pixels are in each of two masks, and in both."""

    prediction: int
    reference: int
    both: int
    total: int
    """Pixels of the grid."""

    @classmethod
    def of(cls, prediction: Bool[np.ndarray, "*s"], reference: Bool[np.ndarray, "*s"]) -> Counts:
        """Count.

        Args:
            prediction: Predicted mask.
            reference: Reference mask.

        Returns:
            The counts.
        """
        check_masks(prediction, reference)
        masks = (prediction, reference, prediction & reference)
        p, r, both = (int(np.count_nonzero(mask)) for mask in masks)
        return cls(p, r, both, prediction.size)

    def value(self, formula: Callable[[Counts], float], empty: Empty) -> float:
        """Apply a formula where neither mask is empty, a table where one is.

        Args:
            formula: Of the counts.
            empty: The table.

        Returns:
            The value.
        """
        if self.prediction and self.reference:
            return float(formula(self))
        if self.reference:
            return empty.no_prediction
        return empty.no_reference if self.prediction else empty.both

    @property
    def specificity(self) -> float:
        """The share of what is outside of the reference that the prediction leaves out; 1 if nothing is outside."""
        outside = self.total - self.reference
        return 1 - (self.prediction - self.both) / outside if outside else 1.0

    @property
    def difference(self) -> float:
        """The relative difference of volumes in %, above 0 where the prediction is the larger."""
        return 100 * (self.prediction - self.reference) / self.reference
