"""How sure a probability is of an image, as one number: to tell the cases that may have failed."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from medsegdiff.inference.uncertainty import entropy_of
from medsegdiff.io.atomic import outer_axis, release
from medsegdiff.labels import Labels
from medsegdiff.types import Array, on_cpu

SLAB = 1 << 22
"""Pixels that are looked at together."""
LEAST = 0.01
"""What is less probable is taken for 0: calibrated it is never 0, and a background would outweigh a structure."""


Sums = TypeVar("Sums", bound="Confidence")


@dataclass(frozen=True)
class Confidence:
    """Sums over the pixels of an image. ``a + b`` joins the parts of a picture, or the slices of a volume."""

    total: Float[np.ndarray, " n"]
    """Of the probability, by structure."""
    inside: Float[np.ndarray, " n"]
    """Of the probability where it is at least ½."""
    drawn: Float[np.ndarray, " n"]
    """Pixels where it is."""

    @classmethod
    def of(cls: type[Sums], probability: Float[Array, "k *s"], labels: Labels) -> Sums:
        """Sum up what lies in memory."""
        return cls(*_sums(probability, labels))

    @classmethod
    def of_array(cls: type[Sums], probability: Float[np.ndarray, "k *s"], labels: Labels, *, slab: int = SLAB) -> Sums:
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

    def __add__(self: Sums, other: Sums) -> Sums:
        return type(self)(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

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


@dataclass(frozen=True)
class Certainty(Confidence):
    """The same, with the entropy of pixels, which takes longer."""

    surprise: float
    """Sum of the entropy of pixels."""
    pixels: int

    @classmethod
    def of(cls, probability: Float[Array, "k *s"], labels: Labels) -> Certainty:
        """Sum up what lies in memory."""
        entropy = entropy_of(probability, exclusive=labels.exclusive)
        surprise = float(entropy.sum(dtype=np.float64))
        total, inside, drawn = _sums(probability, labels)
        return cls(total, inside, drawn, surprise, entropy.size)

    @property
    def entropy(self) -> float:
        """Mean entropy of pixels, 0 … 1."""
        return self.surprise / max(self.pixels, 1)


def _sums(probability: Float[Array, "k *s"], labels: Labels) -> Float[np.ndarray, "3 n"]:
    """Look at the pixels alone that are probable: of many structures they are few."""
    found = []
    for p in on_cpu(probability[labels.foreground]):
        some = p[p >= LEAST]
        drawn = some[some >= 0.5]
        found.append((some.sum(dtype=np.float64), drawn.sum(dtype=np.float64), len(drawn)))
    return np.array(found, np.float64).T
