"""How uncertain a segmentation is, pixel by pixel: maps of what members and probabilities say."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from medsegdiff.labels import argmax_channels, one_hot
from medsegdiff.types import Array, namespace, on_cpu

TINY = 1e-30
"""A probability whose logarithm is finite in single precision; what is less likely adds nothing to an entropy."""


@dataclass(frozen=True)
class Uncertainty:
    """Maps of the uncertainty of a segmentation, on the native grid."""

    std: Float[np.ndarray, " *s"]
    """Standard deviation of the members' probabilities, 0 … 0.5; the largest over channels."""
    entropy: Float[np.ndarray, " *s"]
    """Entropy of the mean probability, 0 … 1 (1: all outcomes equally likely); the largest over regions."""
    disagreement: Float[np.ndarray, " *s"]
    """Share of members that see another class than most do, 0 … 0.5 (binary); the largest over regions."""


def uncertainty_of(members: Float[Array, "m k h w"], *, exclusive: bool) -> Uncertainty:
    """Measure how much members differ, pixel by pixel.

    Args:
        members: Probabilities in [0, 1].
        exclusive: Whether the channels are classes of which each pixel has one.

    Returns:
        The maps.
    """
    xp, mean = namespace(members), members.mean(0)
    variance = xp.square(members - mean).mean(0)  # ten times as fast as std, which strides over members
    std = xp.sqrt(xp.amax(variance, 0))
    if exclusive:
        votes = one_hot(argmax_channels(members, dim=1), members.shape[1]).mean(0)
        disagreement = 1 - xp.amax(votes, 0)
    else:
        votes = xp.asarray(members >= 0.5, dtype=xp.float32).mean(0)
        disagreement = xp.amax(xp.minimum(votes, 1 - votes), 0)
    entropy = entropy_of(mean, exclusive=exclusive)
    return Uncertainty(*map(on_cpu, (std, entropy, disagreement)))


def entropy_of(probability: Float[Array, "k *s"], *, exclusive: bool) -> Float[Array, " *s"]:
    """Compute the entropy of each pixel.

    Args:
        probability: By channel, 0 … 1.
        exclusive: Whether the channels are classes of which each pixel has one.

    Returns:
        In [0, 1], where 1 says that all outcomes are equally likely; the largest over regions.
    """
    if exclusive:
        share = probability / probability.sum(0).clip(1e-6, None)
        return (_entropy(share).sum(0) / math.log(len(probability))).clip(0, 1)
    both = _entropy(probability) + _entropy(1 - probability)
    return (namespace(both).amax(both, 0) / math.log(2)).clip(0, 1)


def _entropy(p: Array) -> Array:
    return -p * namespace(p).log(p.clip(TINY, None))
