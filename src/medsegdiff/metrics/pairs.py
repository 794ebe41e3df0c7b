"""Overlap of every mask of one set with every mask of another, by products of matrices, and what follows from it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import linear_sum_assignment

from medsegdiff.errors import ShapeError

SLAB = 2**22
"""Numbers that one slab of a product may hold, which bounds memory; sums this small are exact in float32."""


def intersections(
    a: Bool[np.ndarray, "m *s"], b: Bool[np.ndarray, "r *s"], *, slab: int = SLAB
) -> Float[np.ndarray, "m r"]:
    """Count the pixels that are in both, for every mask of one set and every mask of another.

    Args:
        a: Masks.
        b: Masks on the same grid; with ``b is a`` the diagonal holds the sizes of the masks.
        slab: Numbers that one slab of a product may hold.

    Returns:
        Numbers of pixels.
    """
    rows, columns = a.reshape(len(a), -1), b.reshape(len(b), -1)
    counts = np.zeros((len(a), len(b)))
    width = max(slab // max(len(a), len(b)), 1)
    for start in range(0, rows.shape[1], width):
        left = rows[:, start : start + width].astype(np.float32)
        right = left if b is a else columns[:, start : start + width].astype(np.float32)
        counts += left @ right.T
    return counts


def iou_of(common: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """Compute the IoU of every two masks of one set; that of two empty masks is 1.

    Args:
        common: Pixels in common, sizes on the diagonal.

    Returns:
        In [0, 1], with ones on the diagonal.
    """
    sizes = common.diagonal()
    union = sizes[:, None] + sizes[None] - common
    return np.divide(common, union, out=np.ones_like(common), where=union > 0)


def dice_of(common: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """Compute the Dice of every two masks of one set; that of two empty masks is 1.

    Args:
        common: Pixels in common, sizes on the diagonal.

    Returns:
        In [0, 1], with ones on the diagonal.
    """
    sizes = common.diagonal()
    total = sizes[:, None] + sizes[None]
    return np.divide(2 * common, total, out=np.ones_like(common), where=total > 0)


def check_sets(samples: np.ndarray, raters: np.ndarray) -> None:
    """Refuse sets of masks that can't be compared.

    Args:
        samples: Masks of the members.
        raters: Masks of the raters.

    Raises:
        ShapeError: If there is no member or no rater, or the grids differ.
    """
    if not len(samples) or not len(raters) or samples.shape[1:] != raters.shape[1:]:
        raise ShapeError(
            f"The samples are {samples.shape}, the raters {raters.shape}; expected (m, *s) and (r, *s) on the same "
            "grid, at least one of each."
        )


def mean_pair(values: Float[np.ndarray, "n n"]) -> float:
    """Average over pairs of different masks.

    Args:
        values: Of every two masks.

    Returns:
        The mean; 1 for a single mask.
    """
    above = values[np.triu_indices(len(values), 1)]
    return float(above.mean()) if above.size else 1.0


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
