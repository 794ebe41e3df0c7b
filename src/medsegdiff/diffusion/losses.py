"""Pure losses on logits and masks; equation 3 is put together in `training.objective`."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from medsegdiff.labels import Labels


def soft_dice(
    probability: Float[Tensor, "b k h w"],
    mask: Float[Tensor, "b k h w"],
    *,
    labelled: Float[Tensor, "b 1 h w"] | None = None,
) -> Float[Tensor, " b"]:
    """Compute 1 − Dice of probabilities, by image, averaged over channels.

    One pixel is added above and below the fraction: two empty masks agree, and no division is by zero.

    Source: Milletari et al. (2016), V-Net, section 3; L_dice of MedSegDiff-V2, equation 3.

    Args:
        probability: In [0, 1].
        mask: 0 and 1.
        labelled: 0 where nobody labelled: what is predicted there does not count.

    Returns:
        In [0, 1].
    """
    if labelled is not None:
        probability, mask = probability * labelled, mask * labelled
    both = (probability * mask).sum(dim=(2, 3))  # (b, k)
    either = probability.sum(dim=(2, 3)) + mask.sum(dim=(2, 3))
    return (1 - (2 * both + 1) / (either + 1)).mean(dim=1)


def cross_entropy(
    logits: Float[Tensor, "b k h w"],
    mask: Float[Tensor, "b k h w"],
    *,
    exclusive: bool,
    labelled: Float[Tensor, "b 1 h w"] | None = None,
) -> Float[Tensor, " b"]:
    """Compute the cross-entropy by image, averaged over pixels (and over channels that may overlap).

    L_ce of MedSegDiff-V2, equation 3.

    Args:
        logits: By channel.
        mask: 0 and 1.
        exclusive: Whether the channels are classes of which each pixel has one.
        labelled: 0 where nobody labelled: such pixels do not count.

    Returns:
        In nats.
    """
    if exclusive:
        by_pixel = -(mask * logits.log_softmax(dim=1)).sum(dim=1, keepdim=True)  # (b, 1, h, w)
    else:
        by_pixel = F.binary_cross_entropy_with_logits(logits, mask, reduction="none")
    return mean_of(by_pixel, labelled)


def mean_of(values: Float[Tensor, "b k h w"], labelled: Float[Tensor, "b 1 h w"] | None) -> Float[Tensor, " b"]:
    """Average over channels and over the pixels that somebody labelled.

    Args:
        values: By pixel.
        labelled: 0 where nobody labelled; ``None``: everything is labelled.

    Returns:
        By image; 0 where nothing is labelled.
    """
    if labelled is None:
        return values.mean(dim=(1, 2, 3))
    return (values.mean(dim=1, keepdim=True) * labelled).sum(dim=(1, 2, 3)) / labelled.sum(dim=(1, 2, 3)).clamp(min=1)


def mask_loss(
    logits: Float[Tensor, "b k h w"],
    mask: Float[Tensor, "b k h w"],
    *,
    labels: Labels,
    dice_weight: float,
    labelled: Float[Tensor, "b 1 h w"] | None = None,
) -> Float[Tensor, " b"]:
    """Compute L_n where the network predicts x_0: cross-entropy and soft Dice of the mask.

    Args:
        logits: Of the mask.
        mask: 0 and 1, or probabilities.
        labels: The label space.
        dice_weight: Of soft Dice.
        labelled: 0 where nobody labelled.

    Returns:
        By image.
    """
    loss = cross_entropy(logits, mask, exclusive=labels.exclusive, labelled=labelled)
    return loss + dice_weight * soft_dice(labels.activate(logits), mask, labelled=labelled)
