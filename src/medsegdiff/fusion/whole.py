"""Deciding on all of a picture from the label maps of its members: what is large is never in memory at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from medsegdiff.fusion.protocol import Raters
from medsegdiff.fusion.staple import Estimate, binary_staple, multi_label_staple
from medsegdiff.fusion.structures import decide_volume
from medsegdiff.labels import Labels


@dataclass(frozen=True)
class DecidedWhole:
    """What the members of an image say together."""

    mask: UInt8[np.ndarray, " *shape"]
    """A label map."""
    sensitivity: Float[np.ndarray, "m k"] | None = None
    """STAPLE: see `medsegdiff.fusion.fusers.Fused`."""
    specificity: Float[np.ndarray, "m k"] | None = None
    held: Float[np.ndarray, " k"] | None = None
    """STAPLE: pixels of each channel that it believes in."""
    converged: bool = True


def staple_whole(
    members: UInt8[np.ndarray, "m ..."], labels: Labels, *, marginal: Float[np.ndarray, "k *s"], raters: Raters
) -> DecidedWhole:
    """Fuse label maps by STAPLE, as `medsegdiff.fusion.fusers.staple` does with members.

    Pixels on which all members vote alike are decided together, so that there is no probability of each pixel.

    Args:
        members: Label map of each member.
        labels: What the values are.
        marginal: Makes no difference here.
        raters: Makes no difference here.

    Returns:
        The decision, with the rates of the members.
    """
    shape, regions = members.shape[1:], labels.task == "regions"
    channels = members.swapaxes(0, 1) if regions else members[None]
    votes = [channel.reshape(len(members), -1) for channel in channels]
    if labels.exclusive:
        estimates = [multi_label_staple(votes[0], len(labels.classes))]
    else:
        estimates = [binary_staple(channel) for channel in votes]
    masks = [_decided(estimate, labels).reshape(shape[int(regions) :]) for estimate in estimates]

    def joined(values: Callable[[Estimate], np.ndarray]) -> np.ndarray:
        return np.concatenate([values(estimate) for estimate in estimates], axis=-1)

    return DecidedWhole(
        mask=np.stack(masks) if regions else masks[0],
        sensitivity=joined(lambda estimate: estimate.sensitivity.astype(np.float32)),
        specificity=joined(lambda estimate: estimate.specificity.astype(np.float32)),
        held=joined(lambda estimate: estimate.held),
        converged=all(estimate.converged for estimate in estimates),
    )


def dice_whole(
    members: UInt8[np.ndarray, "m ..."], labels: Labels, *, marginal: Float[np.ndarray, "k *s"], raters: Raters
) -> DecidedWhole:
    """Decide on the masks of largest expected Dice, as `medsegdiff.fusion.fusers.dice` does with members.

    Args:
        members: Label map of each member.
        labels: What the values are.
        marginal: Calibrated probability of each channel.
        raters: How the reference is made of raters.

    Returns:
        The decision.
    """
    mask = np.empty(members.shape[1:], np.uint8)
    decide_volume(members, labels, mask=mask, marginal=marginal, raters=raters, by_rows=True)
    return DecidedWhole(mask)


WHOLE = {"staple": staple_whole, "dice": dice_whole}
"""Fusions that need all of a picture, and get along with label maps."""


def _decided(estimate: Estimate, labels: Labels) -> UInt8[np.ndarray, " n"]:
    """Decide by votes, then give each pixel what its votes say."""
    of_votes = estimate.of_votes
    decided = labels.decide(of_votes) if labels.exclusive else (of_votes[0] >= 0.5).astype(np.uint8)
    return decided[estimate.votes.of_pixel]
