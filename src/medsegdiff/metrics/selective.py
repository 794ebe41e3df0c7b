"""Whether uncertainty points at errors: risk and Dice against coverage, and the area under risk.

Pixels are sorted by uncertainty, by bins of it: cases of any size are added one after another and pooled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from medsegdiff.metrics.base import ENSEMBLE_METRICS, check_shapes

NUM_BINS = 1024
SLAB = 2**22
"""Pixels that are looked at together, which bounds memory."""


@dataclass(frozen=True)
class Curve:
    """A number against coverage, from the most certain pixels to all of them; pixels equally uncertain join at once."""

    coverage: Float[np.ndarray, " n"]
    """Share of pixels kept, rising to 1."""
    value: Float[np.ndarray, " n"]
    """Of the pixels kept: their error rate, or their Dice."""


@dataclass(frozen=True)
class Selection:
    """Counts of pixels by bin of uncertainty. ``a + b`` pools; ``Selection.empty()`` is the start."""

    highest: float
    """Uncertainty at the end of the last bin."""
    pixels: Float[np.ndarray, " n"]
    prediction: Float[np.ndarray, " n"]
    reference: Float[np.ndarray, " n"]
    both: Float[np.ndarray, " n"]

    @classmethod
    def empty(cls, num_bins: int = NUM_BINS, *, highest: float = 1.0) -> Selection:
        """Begin without pixels.

        Args:
            num_bins: Bins of equal width from 0 to ``highest``.
            highest: The largest uncertainty that there can be: 0.5 for a standard deviation, ln 2 for an entropy.

        Returns:
            Zeros.
        """
        return cls(highest, *(np.zeros(num_bins) for _ in range(4)))

    def add(
        self,
        uncertainty: Float[np.ndarray, "*s"],
        prediction: Bool[np.ndarray, "*s"],
        reference: Bool[np.ndarray, "*s"],
        *,
        slab: int = SLAB,
    ) -> Selection:
        """Pool another case.

        Args:
            uncertainty: From 0 to ``highest``.
            prediction: Predicted mask.
            reference: Reference mask.
            slab: Pixels that are looked at together.

        Returns:
            The counts with those of the case.

        Raises:
            ShapeError: If the grids differ.
        """
        check_shapes(uncertainty=uncertainty, prediction=prediction, reference=reference)
        result, flat = self, [a.reshape(-1) for a in (uncertainty, prediction, reference)]
        for start in range(0, uncertainty.size, slab):
            u, p, r = (a[start : start + slab] for a in flat)
            result += self._counted(u, p, r)
        return result

    def _counted(self, u: np.ndarray, p: np.ndarray, r: np.ndarray) -> Selection:
        """Count a slab; an uncertainty out of range, or none at all (NaN), is refused."""
        if not (u.min() >= 0 and u.max() <= self.highest * (1 + 1e-6)):
            raise ValueError(
                f"Uncertainty goes from {u.min()} to {u.max()}, expected 0 to {self.highest}; give its 'highest'."
            )
        n = len(self.pixels)
        place = np.minimum((u.astype(np.float64) * (n / self.highest)).astype(np.int64), n - 1)
        chosen = (place, place[p], place[r], place[p & r])
        return Selection(self.highest, *(np.bincount(c, minlength=n).astype(np.float64) for c in chosen))

    def __add__(self, other: Selection) -> Selection:
        if (self.highest, len(self.pixels)) != (other.highest, len(other.pixels)):
            raise ValueError(
                f"{len(self.pixels)} bins to {self.highest} and {len(other.pixels)} bins to {other.highest} can't be "
                "pooled; begin both with the same Selection.empty(…)."
            )
        return Selection(
            self.highest,
            self.pixels + other.pixels,
            self.prediction + other.prediction,
            self.reference + other.reference,
            self.both + other.both,
        )

    def risk_coverage(self) -> Curve:
        """Compute the error rate of the pixels kept, see `risk_coverage`."""
        return _risk(self.pixels, self.prediction + self.reference - 2 * self.both)

    def dice_coverage(self, *, referred: bool = False) -> Curve:
        r"""Compute Dice where the most uncertain pixels are left out.

        Args:
            referred: Whether they are handed to a person instead, who draws them as the reference does; Dice is then
                that of the whole mask, and reaches 1 towards coverage 0.

        Returns:
            The curve; where nothing is left in either mask Dice is 1.
        """
        used = self.pixels > 0
        p, r, both = (np.cumsum(a[used]) for a in (self.prediction, self.reference, self.both))
        given = r[-1:] - r if referred else np.zeros_like(r)  # pixels that a person draws
        total = p + r + 2 * given
        dice = np.divide(2 * (both + given), total, out=np.ones_like(total), where=total > 0)
        return Curve(np.cumsum(self.pixels[used]) / self.pixels.sum(), dice)


def risk_coverage(uncertainty: Float[np.ndarray, "*s"], error: Bool[np.ndarray, "*s"]) -> Curve:
    """Compute the error rate of the most certain pixels, for every share of them.

    Sorts every pixel, without bins; ``Selection`` does the same for volumes and many cases.

    Source: El-Yaniv & Wiener (2010).

    Args:
        uncertainty: Of each pixel; any number.
        error: Where prediction and reference differ.

    Returns:
        The curve, one point for each uncertainty that occurs.
    """
    _, place = np.unique(uncertainty.reshape(-1), return_inverse=True)
    return _risk(np.bincount(place), np.bincount(place, weights=error.reshape(-1)))


@ENSEMBLE_METRICS.register(
    "aurc",
    better="lower",
    definition="Area under the error rate of the pixels kept, against the share kept, the most certain first; "
    "uncertainty is the map that was saved with the masks, else the entropy of the probability.",
)
def aurc(curve: Curve) -> float:
    r"""Compute the area under risk against coverage, :math:`\int_0^1 \mathrm{risk}(c)\,dc`.

    Among pixels equally uncertain, errors are as likely to come first as last: there risk · coverage, the share of
    all pixels that are kept and wrong, is linear in coverage, and the integral has a closed form. Uncertainty that
    says nothing thus gives the error rate.

    Source: Geifman, Uziel & El-Yaniv (2019), arXiv:1805.08206, as an integral.

    Args:
        curve: From ``risk_coverage``.

    Returns:
        In [0, 1], lower is better.
    """
    c = np.concatenate([[0.0], curve.coverage])
    wrong = np.concatenate([[0.0], curve.coverage * curve.value])
    slope = np.diff(wrong) / np.diff(c)
    logs = np.log(c[2:] / c[1:-1])  # the first piece starts at 0 and has none
    return float(np.diff(wrong).sum() + ((wrong[1:-1] - slope[1:] * c[1:-1]) * logs).sum())


@ENSEMBLE_METRICS.register(
    "excess_aurc",
    better="lower",
    definition="aurc minus that of the best order there can be.",
)
def excess_aurc(curve: Curve) -> float:
    r"""Compute by how much ``aurc`` exceeds that of the ideal: E-AURC.

    Where every error is less certain than every pixel that is right, the area is
    :math:`e + (1 - e) \ln(1 - e)` with the error rate e.

    Source: Geifman, Uziel & El-Yaniv (2019), arXiv:1805.08206.

    Args:
        curve: From ``risk_coverage``.

    Returns:
        From 0 (errors come last) up.
    """
    e = float(curve.value[-1])
    ideal = e + ((1 - e) * np.log1p(-e) if e < 1 else 0.0)
    return float(aurc(curve) - ideal)


def spearman(predicted: Float[np.ndarray, " n"], error: Float[np.ndarray, " n"]) -> float:
    """Correlate, over cases, the ranks of predicted disagreement (1 − agreement, mean uncertainty) with those of error.

    Source: Spearman (1904); ties share their mean rank.

    Args:
        predicted: One number per case.
        error: One per case, 1 − Dice say.

    Returns:
        In [−1, 1]; NaN for fewer than 2 cases, or where either is the same for all.
    """
    if len(predicted) < 2 or not np.ptp(predicted) or not np.ptp(error):
        return float("nan")
    return float(np.corrcoef(rankdata(predicted), rankdata(error))[0, 1])


def _risk(pixels: np.ndarray, wrong: np.ndarray) -> Curve:
    used = pixels > 0
    kept = np.cumsum(pixels[used])
    return Curve(kept / kept[-1], np.cumsum(wrong[used]) / kept)
