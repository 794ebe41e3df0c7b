"""How sure a probability is of an image, as one number: to tell the cases that may have failed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from medsegdiff.inference.uncertainty import entropy_of
from medsegdiff.io.atomic import outer_axis, release
from medsegdiff.labels import Labels
from medsegdiff.types import Array, namespace, on_cpu

SLAB = 1 << 22
"""Pixels that are looked at together."""
LEAST = 0.01
"""What is less probable is taken for 0: calibrated it is never 0, and a background would outweigh a structure."""


@dataclass(frozen=True)
class Certainty:
    """Sums over the pixels of an image. ``a + b`` joins the slices of a volume."""

    total: Float[np.ndarray, " n"]
    """Of the probability, by structure."""
    inside: Float[np.ndarray, " n"]
    """Of the probability where it is at least ½."""
    drawn: Float[np.ndarray, " n"]
    """Pixels where it is."""
    surprise: float
    """Sum of the entropy of pixels."""
    pixels: int

    @classmethod
    def of(cls, probability: Float[Array, "k *s"], labels: Labels) -> Certainty:
        """Sum up what lies in memory."""
        xp = namespace(probability)
        p = xp.asarray(probability[labels.foreground], dtype=xp.float64).reshape(len(labels.structures), -1)
        p = p * (p >= LEAST)
        drawn = xp.asarray(p >= 0.5, dtype=xp.float64)
        total, inside, count = (on_cpu(of.sum(1)) for of in (p, p * drawn, drawn))
        entropy = entropy_of(probability, exclusive=labels.exclusive)
        return cls(total, inside, count, float(entropy.sum(dtype=xp.float64)), p.shape[1])

    @classmethod
    def of_array(cls, probability: Float[np.ndarray, "k *s"], labels: Labels, *, slab: int = SLAB) -> Certainty:
        """Sum up what may be too large for memory, a part at a time."""
        axis = 1 + outer_axis(probability[0])
        length, per = probability.shape[axis], probability[0].size // probability.shape[axis]
        step = max(1, slab // max(1, per))
        parts = []
        for start in range(0, length, step):
            cut = probability[(slice(None),) * axis + (slice(start, start + step),)]
            parts.append(cls.of(np.asarray(cut, np.float32), labels))
            release(probability)
        return sum(parts[1:], parts[0])

    def __add__(self, other: Certainty) -> Certainty:
        return Certainty(
            self.total + other.total,
            self.inside + other.inside,
            self.drawn + other.drawn,
            self.surprise + other.surprise,
            self.pixels + other.pixels,
        )

    @property
    def entropy(self) -> float:
        """Mean entropy of pixels, 0 … 1."""
        return self.surprise / max(self.pixels, 1)

    @property
    def confidences(self) -> Float[np.ndarray, " n"]:
        r"""Soft Dice of the probability with its own mask, by structure.

        :math:`2 \sum_{p \ge ½} p \,/\, (\sum p + |\{p \ge ½\}|)`: about the Dice that is expected if pixels are as
        likely as p says. 1 where there is no mask, and no pixel with a probability of .01 or more.
        """
        both = self.total + self.drawn
        return np.divide(2 * self.inside, both, out=np.ones_like(both), where=both > 0)

    @property
    def confidence(self) -> float:
        """Its mean over structures."""
        return float(self.confidences.mean())
