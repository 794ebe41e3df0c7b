"""From probabilities to label maps, and from label maps to one mask per structure."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from medsegdiff.fusion.fusers import winners
from medsegdiff.io.mapped import outer_axis, release
from medsegdiff.types import Task

PART = 1 << 22
"""Pixels of each member that are looked at together."""


def label_map(probability: Float[Tensor, "k h w"], task: Task) -> UInt8[np.ndarray, " *shape"]:
    """Decide what each pixel is."""
    if task == "exclusive":
        labels = winners(probability, dim=0)
    else:
        labels = (probability >= 0.5) if task == "regions" else (probability[0] >= 0.5)
    return labels.to(torch.uint8).cpu().numpy()


def structures_of(labels: UInt8[np.ndarray, " *shape"], task: Task, num_classes: int) -> UInt8[np.ndarray, "s *grid"]:
    """Take a label map apart into one mask per structure; the background is none."""
    if task == "regions":
        return labels
    last = 2 if task == "binary" else num_classes
    return (labels == np.arange(1, last).reshape(-1, *(1,) * labels.ndim)).astype(np.uint8)


def pairwise_dice(
    members: UInt8[np.ndarray, "m ..."], structure: Callable[[np.ndarray, int], np.ndarray], count: int, *, lead: int
) -> float:
    """Measure how much members agree: the mean Dice of all pairs, over structures; two empty masks agree.

    Members are looked at a part at a time, so that those of a volume need not fit into memory.
    """
    axis = lead + outer_axis(members[(0,) * lead])
    num, length = len(members), members.shape[axis]
    step = max(1, PART * length // max(1, members.size // num))
    shared = np.zeros((count, num, num))
    for start in range(0, length, step):
        part = members[(slice(None),) * axis + (slice(start, start + step),)]
        for index in range(count):
            masks = np.stack([structure(member, index).ravel() for member in part]).astype(np.float32)
            shared[index] += masks @ masks.T
        release(members)
    sizes = np.diagonal(shared, axis1=1, axis2=2)
    both = sizes[:, :, None] + sizes[:, None, :]
    found = np.where(both > 0, 2 * shared / np.maximum(both, 1), 1.0)
    first, second = np.triu_indices(num, k=1)
    return float(found[:, first, second].mean()) if num > 1 else 1.0
