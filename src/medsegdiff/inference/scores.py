"""How good a segmentation seems, without a reference: by structure, some numbers that are high where it is good."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from jaxtyping import Float

from medsegdiff.inference.certainty import Confidence
from medsegdiff.inference.members import shared_pixels
from medsegdiff.inference.segmentation import Segmentation
from medsegdiff.metrics.pairs import dice_of, mean_pair

SCORES: Mapping[str, str] = MappingProxyType(
    {
        "agreement": "mean Dice of pairs of members",
        "fused_agreement": "mean Dice of the mask with its members",
        "confidence": "soft Dice of the probability with its own mask",
        "anchor_confidence": "the same of the anchor alone",
        "anchor_dice": "Dice of the mask with that of the anchor",
        "steadiness": "1 / (1 + the members' variation of size)",
        "sensitivity": "lowest sensitivity of a member, by STAPLE",
        "order": "1 − mean entropy of the pixels",
    }
)
"""Scores by name, with what they are. Those that a result does not have are left out."""
DOUBTS: Mapping[str, str] = MappingProxyType(
    {
        "agreement": "members disagree",
        "fused_agreement": "members differ from the mask",
        "confidence": "the probability is unsure",
        "anchor_confidence": "the anchor is unsure",
        "anchor_dice": "mask and anchor differ",
        "steadiness": "members differ in size",
        "sensitivity": "a member misses much of it",
        "order": "the probability is unsure in many pixels",
    }
)
"""What it means where they are low."""


def scores_of(result: Segmentation) -> dict[str, dict[str, float]]:
    """Score a segmentation by itself.

    Args:
        result: With members, or without.

    Returns:
        By structure, the scores of `SCORES`, all in [0, 1]; the higher, the better the mask seems.
    """
    labels, anchor = result.labels, result.anchor_certainty
    several, count = len(result.members) > 1, len(result.members)
    maps = [*result.members, result.mask, *(() if result.anchor is None else (result.anchor,))]
    common = shared_pixels(maps, labels)
    sure = (result.confidence or Confidence.of_array(result.probability, labels)).confidences
    anchors = None if anchor is None else anchor.confidences
    order = 1.0 - float(result.uncertainty.entropy.mean())
    found = {}
    for index, name in enumerate(labels.structures):
        dice = dice_of(common[index])
        scores = {"confidence": float(sure[index]), "order": order}
        if several:
            scores |= {
                "agreement": mean_pair(dice[:count, :count]),
                "fused_agreement": float(dice[count, :count].mean()),
                "steadiness": _steadiness(common[index].diagonal()[:count]),
            }
        if anchors is not None:
            scores["anchor_confidence"] = float(anchors[index])
        if result.anchor is not None:
            scores["anchor_dice"] = float(dice[count, count + 1])
        if several and result.sensitivity is not None:
            scores["sensitivity"] = float(result.sensitivity[:, labels.foreground.start or 0 :][:, index].min())
        found[name] = scores
    return found


def _steadiness(sizes: Float[np.ndarray, " m"]) -> float:
    """Tell how alike sizes are: 1 where all are the same."""
    mean = float(sizes.mean())
    return 1.0 if mean == 0 else 1 / (1 + float(sizes.std()) / mean)
