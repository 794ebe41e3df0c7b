"""From probabilities to label maps, and from label maps to one mask per structure."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from medsegdiff.types import Task


def label_map(probability: Float[Tensor, "k h w"], task: Task) -> UInt8[np.ndarray, " *shape"]:
    """Decide what each pixel is.

    Args:
        probability: Of each channel.
        task: How the channels relate.

    Returns:
        Class indices (h w) for ``binary`` (0, 1) and ``exclusive``; 0 and 1 (k h w) for ``regions``.
    """
    if task == "exclusive":
        labels = probability.argmax(dim=0)
    else:
        labels = (probability >= 0.5) if task == "regions" else (probability[0] >= 0.5)
    return labels.to(torch.uint8).cpu().numpy()


def structures_of(labels: UInt8[np.ndarray, " *shape"], task: Task, num_classes: int) -> UInt8[np.ndarray, "s *grid"]:
    """Take a label map apart into one mask per structure; the background is none.

    Args:
        labels: From `label_map`.
        task: How the channels relate.
        num_classes: Channels, the background of exclusive classes included.

    Returns:
        0 and 1 by structure.
    """
    if task == "regions":
        return labels
    last = 2 if task == "binary" else num_classes
    return (labels == np.arange(1, last).reshape(-1, *(1,) * labels.ndim)).astype(np.uint8)
