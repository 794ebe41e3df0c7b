"""Where the members of an ensemble differ: three maps, each 0 where all agree."""

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
        entropy = _entropy(mean / mean.sum(dim=0).clamp(min=1e-6)).sum(dim=0) / math.log(members.shape[1])
    else:
        votes = (members >= 0.5).float().mean(dim=0)
        disagreement = torch.minimum(votes, 1 - votes).amax(dim=0)
        entropy = (_entropy(mean) + _entropy(1 - mean)).amax(dim=0) / math.log(2)
    return Uncertainty(*(map_.cpu().numpy() for map_ in (std, entropy.clamp(0, 1), disagreement)))


def _entropy(p: Tensor) -> Tensor:
    return -torch.xlogy(p, p)
