"""How uncertain a segmentation is, pixel by pixel: maps of what members and probabilities say."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial, reduce

import numpy as np
from jaxtyping import Float, UInt8

from medsegdiff.inference.blocks import in_blocks
from medsegdiff.labels import argmax_channels
from medsegdiff.types import Array, namespace, on_cpu

TINY = 1e-30
"""A probability whose logarithm is finite in single precision; what is less likely adds nothing to an entropy."""
TOGETHER = 16
"""Terms that are added one after the other, before such sums are: as PyTorch adds."""


@dataclass(frozen=True)
class Uncertainty:
    """Maps of the uncertainty of a segmentation, on the native grid."""

    std: Float[np.ndarray, " *s"] | None
    """Standard deviation of the members' probabilities, 0 … 0.5; the largest over channels. ``None`` of results that
    are made for files, as the map of disagreement."""
    entropy: Float[np.ndarray, " *s"]
    """Entropy of the mean probability, 0 … 1 (1: all outcomes equally likely); the largest over regions."""
    disagreement: Float[np.ndarray, " *s"] | None
    """Share of members that see another class than most do, 0 … 0.5 (binary); the largest over regions."""


def uncertainty_of(members: Float[Array, "m k h w"], *, exclusive: bool) -> Uncertainty:
    """Measure how much members differ, pixel by pixel.

    Args:
        members: Probabilities in [0, 1].
        exclusive: Whether the channels are classes of which each pixel has one.

    Returns:
        The maps.
    """
    mean = summed(members) / len(members)
    drawn = on_cpu(argmax_channels(members, dim=1) if exclusive else members >= 0.5).astype(np.uint8)
    disagreement = disagreement_of(drawn, tuple(mean.shape), exclusive=exclusive)
    return Uncertainty(std_of(members), entropy_of(mean, exclusive=exclusive), disagreement)


def std_of(members: Float[Array, "m k h w"]) -> Float[np.ndarray, "h w"]:
    """Compute the standard deviation of members in each pixel.

    Args:
        members: Probabilities in [0, 1].

    Returns:
        0 … 0.5; the largest over channels.
    """
    xp, mean = namespace(members), summed(members) / len(members)
    variance = summed(_squares(members, mean)) / len(members)
    return on_cpu(xp.sqrt(xp.amax(variance, 0)))


def disagreement_of(
    drawn: UInt8[np.ndarray, "m ..."], shape: tuple[int, ...], *, exclusive: bool
) -> Float[np.ndarray, " *s"]:
    """Count in each pixel how many members see something else than most do.

    Args:
        drawn: Label map of each member, as `medsegdiff.labels.Labels` has it.
        shape: Channels, and size of the maps.
        exclusive: Whether the channels are classes of which each pixel has one.

    Returns:
        The share of members; the largest over regions.
    """
    number, count = np.float32(len(drawn)), np.uint8 if len(drawn) < 256 else np.uint16
    if exclusive:
        differing = drawn[:, where := np.bitwise_or.reduce(drawn ^ drawn[0]) > 0]
        votes = (np.add.reduce((differing == label).view(np.uint8), dtype=count) for label in range(shape[0]))
        disagreement = np.zeros(shape[1:], np.float32)
        disagreement[where] = 1 - reduce(np.maximum, votes) / number
        return disagreement
    share = np.add.reduce(drawn, dtype=count).reshape(-1, *shape[1:]) / number
    return np.asarray(np.minimum(share, 1 - share).max(axis=0))


def entropy_of(probability: Float[Array, "k *s"], *, exclusive: bool) -> Float[np.ndarray, " *s"]:
    """Compute the entropy of each pixel, exactly: in float32 logarithms depend on how many processors take at once.

    Args:
        probability: By channel, 0 … 1.
        exclusive: Whether the channels are classes of which each pixel has one.

    Returns:
        In [0, 1], where 1 says that all outcomes are equally likely; the largest over regions.
    """
    p = on_cpu(probability)
    return in_blocks(partial(_entropy_of, exclusive=exclusive), p).astype(p.dtype)


def summed(terms: Iterable[Float[Array, " *s"]]) -> Float[Array, " *s"]:
    """Add arrays, in one order for all pixels: `Tensor.sum` takes another one for the last pixels of an array.

    Args:
        terms: One at least.

    Returns:
        The sum.
    """
    sums: list[Array] = []
    for number, term in enumerate(terms):
        if number % TOGETHER == 0:
            sums.append(namespace(term).zeros_like(term))
        sums[-1] += term
    total, *others = sums
    for other in others:
        total += other
    return total


def _squares(members: Float[Array, "m k h w"], mean: Float[Array, "k h w"]) -> Iterator[Float[Array, "k h w"]]:
    """Square the deviations, all in one room: a term is gone when the next one is asked for."""
    xp, room = namespace(mean), namespace(mean).empty_like(mean)
    for member in members:
        xp.subtract(member, mean, out=room)
        yield xp.square(room, out=room)


def _entropy_of(probability: Float[np.ndarray, "k n"], *, exclusive: bool) -> Float[np.ndarray, " n"]:
    p = probability.astype(np.float64)
    if exclusive:
        entropy = _entropy(p / p.sum(axis=0).clip(1e-6)).sum(axis=0) / math.log(len(p))
    else:
        entropy = (_entropy(p) + _entropy(1 - p)).max(axis=0) / math.log(2)
    return np.asarray(entropy.clip(0, 1))


def _entropy(p: Float[np.ndarray, "k n"]) -> Float[np.ndarray, "k n"]:
    return -p * np.log(p.clip(TINY))
