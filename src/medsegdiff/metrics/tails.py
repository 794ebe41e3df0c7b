"""How unusual a number is among some that were seen, and what two such numbers say together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

MOST = 100
"""Numbers that are kept of those that were seen: of more than these the largest, which make a half, and quantiles."""
UPPER = 0.8
"""Quantile of what was seen, from which on the tail is taken to be exponential."""
LEAST_SCALE, LEAST_SHARE = 0.01, 1e-300
"""Of that tail, as a share of the largest number; and a share that is left to any finite number."""


class Tail(NamedTuple):
    """Numbers that were seen, by which others are judged: large ones are unusual."""

    values: tuple[float, ...]
    """Rising; all of them, or what is kept."""
    total: int
    """How many there were."""
    largest: int = 0
    """How many of the values, the last ones, were seen one by one; those before are quantiles of the others, evenly
    spread over their ranks."""

    @classmethod
    def of(cls, values: Sequence[float] | Float[np.ndarray, " n"]) -> Tail:
        """Keep what was seen.

        Args:
            values: At least one.

        Returns:
            The tail.
        """
        seen = np.sort(np.asarray(values, float))
        if len(seen) <= MOST:
            return cls(tuple(seen.tolist()), len(seen))
        others, largest = np.split(seen, [len(seen) - MOST // 2])
        quantiles = np.quantile(others, np.linspace(0, 1, MOST - len(largest)))
        return cls((*quantiles.tolist(), *largest.tolist()), len(seen), len(largest))

    @property
    def _seen(self) -> Float[np.ndarray, " n"]:
        """All of them again: those that are not kept lie evenly between quantiles."""
        if len(self.values) == self.total:
            return np.array(self.values)
        others = self.total - self.largest
        ranks = np.r_[np.linspace(0, others - 1, len(self.values) - self.largest), np.arange(others, self.total)]
        return np.interp(np.arange(self.total), ranks, self.values)

    def quantile(self, level: float) -> float:
        """Tell below what so large a share of them lies.

        Args:
            level: In [0, 1].

        Returns:
            The quantile.
        """
        return float(np.quantile(self._seen, level))

    def share(self, value: float) -> float:
        r"""Tell how many are at least as large: :math:`(1 + |\{v \ge x\}|) / (n + 1)`, as a conformal p-value is.

        Beyond the largest, where counting ends, it falls as the tail of an exponential distribution whose mean is the
        mean excess of the upper fifth: what lies far beyond all that were seen stays apart from what was the largest.

        Source: Pickands (1975), Annals of Statistics 3, 119–131, for excesses over a threshold; here of shape 0.

        Args:
            value: x.

        Returns:
            In (0, 1].
        """
        seen = self._seen
        least = 1 / (self.total + 1)
        if value > seen[-1]:
            upper = seen[seen >= np.quantile(seen, UPPER)]
            scale = max(float((upper - upper[0]).mean()), LEAST_SCALE * abs(seen[-1]), LEAST_SHARE)
            return max(least * math.exp((seen[-1] - value) / scale), LEAST_SHARE) if math.isfinite(value) else 0.0
        return (1 + int(np.count_nonzero(seen >= value))) / (self.total + 1)


def together(*shares: float) -> float:
    r"""Join shares of independent numbers: how often their product is as small, :math:`k \sum_i (-\ln k)^i / i!`.

    Source: Fisher (1925), Statistical Methods for Research Workers, section 21.1.

    Args:
        *shares: In [0, 1]: p-values.

    Returns:
        In [0, 1]; as small where one share is tiny as where both are small.
    """
    product = math.prod(shares)
    if product <= 0:
        return 0.0
    terms = [(-math.log(product)) ** place / math.factorial(place) for place in range(len(shares))]
    return min(product * sum(terms), 1.0)
