"""How a reference is made of several raters, and what that makes of drawn masks and of probabilities.

The reference is the majority of R raters, where a tie is foreground: of two raters their union, of three two of three.
It is neither a rater's mask nor the half level of the raters' share, so that the best mask for it is another one too.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from medsegdiff.errors import ConfigError
from medsegdiff.seeding import derive_seed

MOST_RATERS = 1000
"""Of whom panels can be counted in double precision."""
MOST = 60
"""Simulated references: their votes fit into one number of 64 bits."""


@dataclass(frozen=True)
class Raters:
    r"""How the reference is made of raters, and how far these draw alike.

    All raters see the same picture. What the network can't make out in it they may see, all of them: then they draw
    alike, and the majority is what one of them draws. So with probability ρ they share one mask, and else each draws
    by himself:

    .. math:: p_{ref} = (1 - ρ) P(\mathrm{Bin}(R, p) \ge R / 2) + ρ\, p

    and of drawn masks likewise: majorities of R count 1 − ρ together, single masks ρ.

    Source: our own; the simplest law of raters that are alike and depend on each other (de Finetti's theorem: a mixture
    of independent ones).
    """

    number: int = 1
    """R, whose majority is the reference; a tie is foreground."""
    dependence: float = 0.0
    """ρ, 0 … 1; makes no difference to one rater."""

    def probability(self, p: Float[np.ndarray, "*s"]) -> Float[np.ndarray, "*s"]:
        """Compute how probable a pixel is in the reference.

        Args:
            p: How probable a rater draws it, 0 … 1.

        Returns:
            Probability, 0 … 1.

        Raises:
            ConfigError: If there is no rater.
        """
        apart = protocol_probability(p, self.number)
        return apart if self.number == 1 else apart + np.asarray(self.dependence, p.dtype) * (p - apart)

    def references(
        self, votes: Bool[np.ndarray, "m *s"]
    ) -> tuple[Bool[np.ndarray, "m2 *s"], Float[np.ndarray, " m2"] | None]:
        """Build references as the real one was built.

        Args:
            votes: A sample is a mask that one rater might draw.

        Returns:
            References, and how probable each is; ``None``: all alike.

        Raises:
            ConfigError: If there is no rater.
        """
        if self.number == 1 or not self.dependence:
            return simulated_references(votes, raters=self.number), None
        apart = simulated_references(votes, raters=self.number, most=max(MOST - len(votes), MOST // 2))
        shares = (1 - self.dependence) / len(apart), self.dependence / len(votes)
        return np.concatenate([apart, votes]), np.repeat(shares, (len(apart), len(votes)))


def simulated_references(
    votes: Bool[np.ndarray, "m *s"], *, raters: int, most: int = MOST
) -> Bool[np.ndarray, "m2 *s"]:
    """Build references as the real one was built, with samples as raters: the majority of R of them.

    Which samples make a reference depends on their number alone, so that a volume may come slab by slab.

    Args:
        votes: A sample is a mask that one rater might draw.
        raters: R; 1 gives the samples themselves.
        most: References at most; of more subsets of R samples, so many are drawn, always the same.

    Returns:
        The majority of each subset, a tie is foreground. Where R is larger than the number of samples, a sample may
        stand for several raters.

    Raises:
        ConfigError: If there is no rater.
    """
    if raters == 1:
        return votes
    made = [2 * votes[chosen].sum(axis=0, dtype=np.uint16) >= raters for chosen in _panels(len(votes), raters, most)]
    return np.stack(made)


def protocol_probability(p: Float[np.ndarray, "*s"], raters: int) -> Float[np.ndarray, "*s"]:
    r"""Compute how probable a pixel is in the majority of R raters that draw independently of each other.

    :math:`p^R = P(\mathrm{Bin}(R, p) \ge R / 2)`.

    Args:
        p: How probable a rater draws a pixel, 0 … 1.
        raters: R; 1 gives p.

    Returns:
        Probability, 0 … 1.

    Raises:
        ConfigError: If there is no rater.
    """
    _check(raters)
    if raters == 1:
        return p
    exact = p.astype(np.float64)
    some = (math.comb(raters, k) * exact**k * (1 - exact) ** (raters - k) for k in range(-(-raters // 2), raters + 1))
    return np.asarray(sum(some), p.dtype).clip(0, 1)


def _panels(num_samples: int, raters: int, most: int) -> Int[np.ndarray, "m2 r"]:
    """Choose the samples that take the raters' place in each reference."""
    _check(raters)
    repeated = raters > num_samples
    count = num_samples**raters if repeated else math.comb(num_samples, raters)
    if count <= most:
        numbers = range(num_samples)
        every = itertools.product(numbers, repeat=raters) if repeated else itertools.combinations(numbers, raters)
        return np.array(list(every))
    rng = np.random.default_rng(derive_seed("references", num_samples, raters))
    if repeated:
        return rng.integers(num_samples, size=(most, raters))
    return rng.random((most, num_samples)).argsort(axis=1)[:, :raters]


def _check(raters: int) -> None:
    if raters < 1:
        raise ConfigError(f"raters is {raters}; a reference has one rater at least. Give 1 or more.")
    if raters > MOST_RATERS:
        raise ConfigError(f"raters is {raters}; allowed are 1 … {MOST_RATERS}.")
