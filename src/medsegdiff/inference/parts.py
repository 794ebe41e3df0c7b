"""What a model says of a picture, or of a slice of a volume: members, fused mask, probability and uncertainty."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from medsegdiff.inference.certainty import Certainty, Confidence
from medsegdiff.inference.members import Choice
from medsegdiff.inference.uncertainty import Uncertainty


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a model says of a picture, or of a slice of a volume, on the native grid: arrays, and nothing of files.

    Label maps are those of `Labels`: (h, w) with class indices, (k, h, w) with 0 and 1 for ``regions``.
    Probabilities are (k, h, w); k = 1 for ``binary``. Of a volume, all have its three axes instead of h and w.
    """

    mask: UInt8[np.ndarray, ...]
    """The fused label map."""
    probability: Float[np.ndarray, "k *s"]
    """Of each channel: the calibrated mixture of anchor and members, whatever the fusion."""
    uncertainty: Uncertainty
    """Maps of std, entropy and disagreement."""
    members: UInt8[np.ndarray, "m ..."]
    """Label map of each member."""
    anchor: UInt8[np.ndarray, ...] | None
    """Label map of the Condition Model alone, never part of the fusion; ``None`` from a network without an anchor."""
    anchor_probability: Float[np.ndarray, "k *s"] | None
    """``None`` for volumes too, where it would take as much room as all the rest."""
    sensitivity: Float[np.ndarray, "m k"] | None
    """By member and channel, as STAPLE estimates it, in volumes slice by slice; ``None`` with another fusion."""
    specificity: Float[np.ndarray, "m k"] | None
    held: Float[np.ndarray, " k"] | None = None
    """Pixels of each channel that STAPLE believes in."""
    anchor_certainty: Certainty | None = None
    """How sure the anchor is, of volumes too."""
    confidence: Confidence | None = None
    """How sure the probability is, of pictures; ``None``: it has yet to be looked at."""
    pooled: Float[np.ndarray, " f"] | None = None
    """What the networks saw of it, as some numbers, run after run; of a volume the mean over slices. ``None`` from
    networks that do not show it."""
    choice: Choice | None = None
    """How members were chosen among candidates, which mask, probability and uncertainty rest on; ``None``: they were
    not."""
