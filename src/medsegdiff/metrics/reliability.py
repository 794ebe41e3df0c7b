"""How often the foreground was there, by the probability that it was given: sums over pixels, and their curve.

Sums are kept by bin of probability, so cases of any size are added one after another and pooled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from medsegdiff.metrics.base import check_shapes

NUM_BINS = 15
CLIP = 1e-6
"""Probabilities of the log score stay this far from 0 and 1: a share of members is often 0 where a rater drew."""
SLAB = 2**22
"""Pixels that are looked at together, which bounds memory."""


@dataclass(frozen=True)
class Reliability:
    """A reliability curve: how often the foreground was there, where it was given a probability."""

    edges: Float[np.ndarray, " n_plus_1"]
    """Of the bins, from 0 to 1."""
    predicted: Float[np.ndarray, " n"]
    """Mean probability in each bin; NaN where a bin has no pixel."""
    observed: Float[np.ndarray, " n"]
    """Mean reference in each bin: the frequency of the foreground; NaN where a bin has no pixel."""
    weight: Float[np.ndarray, " n"]
    """Share of all pixels in each bin."""


@dataclass(frozen=True)
class Calibration:
    """Sums over pixels by bin of probability. ``a + b`` pools; ``Calibration.empty()`` is the start."""

    count: Float[np.ndarray, " n"]
    predicted: Float[np.ndarray, " n"]
    observed: Float[np.ndarray, " n"]
    squared_error: Float[np.ndarray, " n"]
    log_loss: Float[np.ndarray, " n"]
    """In nats."""

    @classmethod
    def empty(cls, num_bins: int = NUM_BINS) -> Calibration:
        """Begin without pixels.

        Args:
            num_bins: Bins of equal width over [0, 1].

        Returns:
            Zeros.
        """
        return cls(*(np.zeros(num_bins) for _ in range(5)))

    @classmethod
    def of(
        cls,
        probability: Float[np.ndarray, "*s"],
        reference: Bool[np.ndarray, "*s"] | Float[np.ndarray, "*s"],
        *,
        num_bins: int = NUM_BINS,
        where: Bool[np.ndarray, "*s"] | None = None,
        slab: int = SLAB,
    ) -> Calibration:
        """Sort the pixels of a case into bins.

        Args:
            probability: Of the foreground, 0 … 1.
            reference: The mask, or the share of raters that drew each pixel.
            num_bins: Bins of equal width over [0, 1]; each holds its lower edge, the last both.
            where: Pixels that count; ``None``: all.
            slab: Pixels that are looked at together.

        Returns:
            The sums.

        Raises:
            ShapeError: If the grids differ.
            ValueError: If probabilities or reference leave [0, 1].
        """
        check_shapes(probability=probability, reference=reference, **({} if where is None else {"where": where}))
        result = cls.empty(num_bins)
        for p, y in _slabs(probability, reference, where, slab):
            place = np.minimum((p * num_bins).astype(np.int64), num_bins - 1)
            columns = (None, p, y, (p - y) ** 2, _log_loss(p, y))
            sums = [np.bincount(place, weights=values, minlength=num_bins) for values in columns]
            result += cls(*(np.asarray(column, dtype=np.float64) for column in sums))
        return result

    def add(
        self,
        probability: Float[np.ndarray, "*s"],
        reference: Bool[np.ndarray, "*s"] | Float[np.ndarray, "*s"],
        *,
        where: Bool[np.ndarray, "*s"] | None = None,
    ) -> Calibration:
        """Pool another case.

        Args:
            probability: Of the foreground, 0 … 1.
            reference: The mask, or the share of raters that drew each pixel.
            where: Pixels that count; ``None``: all.

        Returns:
            The sums with those of the case.
        """
        return self + Calibration.of(probability, reference, num_bins=len(self.count), where=where)

    def __add__(self, other: Calibration) -> Calibration:
        return Calibration(
            self.count + other.count,
            self.predicted + other.predicted,
            self.observed + other.observed,
            self.squared_error + other.squared_error,
            self.log_loss + other.log_loss,
        )

    def ece(self) -> float:
        """Compute the expected calibration error, see `ece`: in [0, 1]; NaN without pixels."""
        return _ratio(np.abs(self.predicted - self.observed).sum(), self.count.sum())

    def brier(self) -> float:
        """Compute the Brier score, see `brier`: in [0, 1]; NaN without pixels."""
        return _ratio(self.squared_error.sum(), self.count.sum())

    def nll(self) -> float:
        """Compute the log score, see `nll`: 0 nats and up; NaN without pixels."""
        return _ratio(self.log_loss.sum(), self.count.sum())

    def curve(self) -> Reliability:
        """Compute the reliability curve."""
        means = [np.full_like(self.count, np.nan) for _ in range(2)]
        for mean, sums in zip(means, (self.predicted, self.observed), strict=True):
            np.divide(sums, self.count, out=mean, where=self.count > 0)
        weight = self.count / max(self.count.sum(), 1)
        return Reliability(np.linspace(0, 1, len(self.count) + 1), means[0], means[1], weight)


def _slabs(
    probability: np.ndarray, reference: np.ndarray, where: np.ndarray | None, slab: int
) -> Iterator[tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]]:
    """Cut probabilities and reference into pieces with values checked, without the pixels that don't count."""
    p, y, kept = probability.reshape(-1), reference.reshape(-1), None if where is None else where.reshape(-1)
    for start in range(0, p.size, slab):
        part = slice(start, start + slab)
        cut = [a[part] if kept is None else a[part][kept[part]] for a in (p, y)]
        for values, name in zip(cut, ("Probabilities", "References"), strict=True):
            if values.size and not (values.min() >= 0 and values.max() <= 1):
                raise ValueError(f"{name} go from {values.min()} to {values.max()}; they must lie in [0, 1].")
        yield cut[0].astype(np.float64), cut[1].astype(np.float64)


def _log_loss(p: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    p = p.clip(CLIP, 1 - CLIP)
    return np.asarray(-(y * np.log(p) + (1 - y) * np.log1p(-p)))


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")
