"""How uncertain a segmentation is, pixel by pixel: maps of what members and probabilities say."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from medsegdiff.labels import argmax_channels, one_hot


@dataclass(frozen=True)
class Uncertainty:
    """Maps of the uncertainty of a segmentation, on the native grid."""

    std: Float[np.ndarray, " *s"]
    """Standard deviation of the members' probabilities, 0 … 0.5; the largest over channels."""
    entropy: Float[np.ndarray, " *s"]
    """Entropy of the mean probability, 0 … 1 (1: all outcomes equally likely); the largest over regions."""
    disagreement: Float[np.ndarray, " *s"]
    """Share of members that see another class than most do, 0 … 0.5 (binary); the largest over regions."""


def uncertainty_of(members: Float[Tensor, "m k h w"], *, exclusive: bool) -> Uncertainty:
    """Measure how much members differ, pixel by pixel.

    Args:
        members: Probabilities in [0, 1].
        exclusive: Whether the channels are classes of which each pixel has one.

    Returns:
        The maps.
    """
    mean = members.mean(dim=0)
    variance = (members - mean).square().mean(dim=0)  # ten times as fast as std, which strides over members
    std = variance.amax(dim=0).sqrt()
    if exclusive:
        votes = one_hot(argmax_channels(members, dim=1), members.shape[1]).mean(dim=0)
        disagreement = 1 - votes.amax(dim=0)
    else:
        votes = (members >= 0.5).float().mean(dim=0)
        disagreement = torch.minimum(votes, 1 - votes).amax(dim=0)
    entropy = entropy_of(mean, exclusive=exclusive)
    return Uncertainty(*(map_.cpu().numpy() for map_ in (std, entropy, disagreement)))


def entropy_of(probability: Float[Tensor, "k *s"], *, exclusive: bool) -> Float[Tensor, " *s"]:
    """Compute the entropy of each pixel.

    Args:
        probability: By channel, 0 … 1.
        exclusive: Whether the channels are classes of which each pixel has one.

    Returns:
        In [0, 1], where 1 says that all outcomes are equally likely; the largest over regions.
    """
    if exclusive:
        share = probability / probability.sum(dim=0).clamp(min=1e-6)
        return (_entropy(share).sum(dim=0) / math.log(len(probability))).clamp(0, 1)
    return ((_entropy(probability) + _entropy(1 - probability)).amax(dim=0) / math.log(2)).clamp(0, 1)


def _entropy(p: Tensor) -> Tensor:
    return -torch.xlogy(p, p)
