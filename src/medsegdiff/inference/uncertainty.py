"""Where the members of an ensemble differ: three maps, each 0 where all agree; and how much they agree on the whole."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from medsegdiff.io.mapped import outer_axis, release
from medsegdiff.labels import Labels, argmax_channels, one_hot

SLAB = 1 << 22
"""Pixels of each member that are looked at together."""


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


def agreement_of(members: UInt8[np.ndarray, "m ..."], labels: Labels, *, slab: int = SLAB) -> float:
    """Measure how much members agree: the mean Dice of all pairs, over structures; two empty masks agree.

    Members are looked at a part at a time, so that those of a volume need not fit into memory.
    """
    lead = 2 if labels.task == "regions" else 1
    axis = lead + outer_axis(members[(0,) * lead])
    num, length, count = len(members), members.shape[axis], len(labels.structures)
    step = max(1, slab * length // max(1, members.size // num))
    shared = np.zeros((count, num, num))
    for start in range(0, length, step):
        part = members[(slice(None),) * axis + (slice(start, start + step),)]
        for index in range(count):
            masks = np.stack([labels.mask(member, index).ravel() for member in part]).astype(np.float32)
            shared[index] += masks @ masks.T
        release(members)
    sizes = np.diagonal(shared, axis1=1, axis2=2)
    both = sizes[:, :, None] + sizes[:, None, :]
    found = np.where(both > 0, 2 * shared / np.maximum(both, 1), 1.0)
    first, second = np.triu_indices(num, k=1)
    return float(found[:, first, second].mean()) if num > 1 else 1.0


def _entropy(p: Tensor) -> Tensor:
    return -torch.xlogy(p, p)
