"""Losses of masks, by image, and means over what somebody labelled: for the process and for networks with their own."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def soft_dice(
    probability: Float[Tensor, "b k h w"],
    mask: Float[Tensor, "b k h w"],
    *,
    labelled: Float[Tensor, "b 1 h w"] | None = None,
    batch: bool = False,
) -> Float[Tensor, " b"]:
    """Compute 1 − Dice of probabilities, by image, averaged over channels.

    One pixel is added above and below the fraction: two empty masks agree, and no division is by zero.

    Source: Milletari et al. (2016), V-Net, section 3; L_dice of MedSegDiff-V2, equation 3.

    Args:
        probability: In [0, 1].
        mask: 0 and 1.
        labelled: 0 where nobody labelled: what is predicted there does not count.
        batch: Whether the pixels of all images count together, as nnU-Net does in 2-D; then all have one loss.

    Returns:
        In [0, 1].
    """
    both, sizes = overlap(probability, mask, labelled=labelled, batch=batch)
    return (1 - (2 * both + 1) / (sizes + 1)).mean(dim=-1).expand(len(mask))


def overlap(
    probability: Float[Tensor, "b k h w"],
    mask: Float[Tensor, "b k h w"],
    *,
    labelled: Float[Tensor, "b 1 h w"] | None = None,
    batch: bool = False,
) -> tuple[Float[Tensor, "*b k"], Float[Tensor, "*b k"]]:
    """Sum what soft Dice compares, over pixels.

    Args:
        probability: In [0, 1].
        mask: 0 and 1.
        labelled: 0 where nobody labelled: such pixels do not count.
        batch: Whether the pixels of all images count together.

    Returns:
        Of the product, and of both by themselves: by image, or of the batch.
    """
    if labelled is not None:
        probability, mask = probability * labelled, mask * labelled
    over = (0, 2, 3) if batch else (2, 3)
    return (probability * mask).sum(dim=over), probability.sum(dim=over) + mask.sum(dim=over)


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
