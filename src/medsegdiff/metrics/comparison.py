"""An ensemble and its raters, compared pixel by pixel once: what follows from the overlap of all their masks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import linear_sum_assignment

from medsegdiff.errors import ShapeError
from medsegdiff.metrics.pairs import check_sets, dice_of, intersections, iou_of, mean_pair


@dataclass(frozen=True)
class EnergyDistance:
    """A squared generalised energy distance, and what it was estimated from."""

    value: float
    """GED², from 0 to 2; the estimate over distinct pairs may fall below 0."""
    num_samples: int
    """Members of the ensemble; values of different numbers don't compare."""
    num_raters: int
    between: float
    """Mean distance of a member and a rater."""
    within_samples: float
    """Mean distance of two members: how diverse the ensemble is."""
    within_raters: float
    """Mean distance of two raters."""


@dataclass(frozen=True)
class Comparison:
    """An ensemble and its raters, compared pixel by pixel once: every number of ensembles follows from it."""

    common: Float[np.ndarray, "n n"]
    """Number of pixels that two masks share: members first, then raters; sizes of the masks on the diagonal."""
    num_samples: int

    @classmethod
    def of(cls, samples: Bool[np.ndarray, "m *s"], raters: Bool[np.ndarray, "r *s"]) -> Comparison:
        """Count the pixels in common; of no member, of no rater or on grids that differ it is a `ShapeError`."""
        check_sets(samples, raters)
        between = intersections(samples, raters)
        common = np.block(
            [[intersections(samples, samples), between], [between.T, intersections(raters, raters)]],
        )
        return cls(common, len(samples))

    def ged(self, *, distinct: bool = False) -> EnergyDistance:
        """Compute the squared generalised energy distance, see `ged`."""
        m, r = self.num_samples, len(self.common) - self.num_samples
        if distinct and min(m, r) < 2:
            raise ShapeError(
                f"{m} samples and {r} raters: distinct pairs need two of each. Use distinct=False, all pairs."
            )
        distance = 1 - iou_of(self.common)
        between = float(distance[:m, m:].mean())
        within = [float(d.sum() / (n * (n - distinct))) for d, n in ((distance[:m, :m], m), (distance[m:, m:], r))]
        return EnergyDistance(2 * between - within[0] - within[1], m, r, between, within[0], within[1])

    def hm_iou(self) -> float:
        """Compute the Hungarian-matched IoU, see `hm_iou`."""
        m, r = self.num_samples, len(self.common) - self.num_samples
        size = math.lcm(m, r)
        iou = iou_of(self.common)[:m, m:].repeat(size // m, axis=0).repeat(size // r, axis=1)
        return float(iou[linear_sum_assignment(iou, maximize=True)].mean())

    def d_max(self) -> float:
        """Average over raters the Dice of the member that suits each best, see `d_max`."""
        return float(self.rater_dice().max(axis=0).mean())

    def rater_dice(self) -> Float[np.ndarray, "m r"]:
        """Compute the Dice of each member with each rater."""
        return dice_of(self.common)[: self.num_samples, self.num_samples :]

    def agreement(self) -> float:
        """Compute the mean Dice of two members, see `agreement`."""
        return mean_pair(dice_of(self.common)[: self.num_samples, : self.num_samples])
