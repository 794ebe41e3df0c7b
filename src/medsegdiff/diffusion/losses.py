"""Losses of a prediction, by image: of masks, of samples, and of the learned variance."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from medsegdiff.diffusion.schedule import NoiseSchedule
from medsegdiff.labels import Labels
from medsegdiff.nn.losses import cross_entropy, soft_dice


def mask_loss(
    logits: Float[Tensor, "b k h w"],
    mask: Float[Tensor, "b k h w"],
    *,
    labels: Labels,
    dice_weight: float | Float[Tensor, " b"],
    labelled: Float[Tensor, "b 1 h w"] | None = None,
) -> Float[Tensor, " b"]:
    """Compute L_n where the network predicts x_0: cross-entropy and soft Dice of the mask.

    Args:
        logits: Of the mask.
        mask: 0 and 1, or probabilities.
        labels: The label space.
        dice_weight: Of soft Dice, for all images or for each.
        labelled: 0 where nobody labelled.

    Returns:
        By image.
    """
    loss = cross_entropy(logits, mask, exclusive=labels.exclusive, labelled=labelled)
    return loss + dice_weight * soft_dice(labels.activate(logits), mask, labelled=labelled)


def jaccard_distance(
    a: Float[Tensor, "... h w"], b: Float[Tensor, "... h w"], *, shared: float = 0.0
) -> Float[Tensor, "..."]:
    r"""Compute 1 − IoU of masks, which may hold values between 0 and 1.

    :math:`1 - \frac{|a| + |b| - |a - b|_1}{|a| + |b| + |a - b|_1} = 1 - \frac{\sum \min(a, b)}{\sum \max(a, b)}`:
    1 − IoU of masks of 0 and 1, and 0 for two that are equal, whatever their values. It is of negative type.

    Source: Wang et al. (2023), Jaccard Metric Losses, arXiv:2302.05666.

    Args:
        a: In [0, 1].
        b: In [0, 1]; of axes that both have or that broadcast.
        shared: Pixels that are added to both, as if all masks had them in common: then even a mask that holds nothing
            is near one that holds little, and the distance stays of negative type.

    Returns:
        In [0, 1]; 0 for two empty masks.
    """
    both = torch.minimum(a, b).sum(dim=(-2, -1))
    either = a.sum(dim=(-2, -1)) + b.sum(dim=(-2, -1)) - both
    return torch.where(either > 0, (either - both) / (either + shared).clamp(min=torch.finfo(a.dtype).tiny), 0.0)


SHARED = 1.0
"""Pixels that all masks are given in common by `energy_score`: as soft Dice adds one."""


def energy_score(
    samples: Float[Tensor, "b m k h w"],
    masks: Float[Tensor, "b r k h w"],
    *,
    labelled: Float[Tensor, "b 1 h w"] | None = None,
    shared: float = SHARED,
) -> Float[Tensor, " b"]:
    r"""Compute the energy score of samples against raters, by image, averaged over channels.

    :math:`\frac{1}{mr} \sum_{k,j} d(S_k, y_j) - \frac{1}{2 m (m-1)} \sum_{k \neq l} d(S_k, S_l)`, d being
    `jaccard_distance`. It is unbiased whatever m, and as d is of negative type, no law of samples has a lower
    expectation than the raters' own, of each structure by itself. Twice the score is the unbiased GED² of
    `metrics.distribution.ged`, but for the distance among raters, which no sampler changes.

    Source: Gneiting & Raftery (2007), equation 22; Székely & Rizzo (2013).

    Args:
        samples: In [0, 1]; m ≥ 2 of each image, drawn independently.
        masks: Of the raters.
        labelled: 0 where nobody labelled.
        shared: Pixels that all masks are given in common.

    Returns:
        The score; lower is better.
    """
    if labelled is not None:
        samples, masks = samples * labelled[:, None], masks * labelled[:, None]
    one, other = torch.triu_indices(samples.shape[1], samples.shape[1], offset=1)
    between = jaccard_distance(samples[:, :, None], masks[:, None], shared=shared).mean(dim=(1, 2))  # (b, k)
    within = jaccard_distance(samples[:, one], samples[:, other], shared=shared).mean(dim=1)
    return (between - within / 2).mean(dim=1)


WEIGHT = 0.001
"""λ of L_hybrid: Nichol & Dhariwal (2021), section 3.1."""


def split(output: Float[Tensor, "b k2 h w"], channels: int) -> tuple[Float[Tensor, "b k h w"], Tensor | None]:
    """Take a network's output apart: the prediction, then (if it has twice the channels) how wide the noise is.

    Args:
        output: K or 2K channels.
        channels: K.

    Returns:
        The prediction; by channel the share of log β_t in the logarithm of the variance, the rest being that of the
        posterior's: 0 and 1 for the network's −1 and 1. ``None`` if the variance is not learned.
    """
    if output.shape[1] == channels:
        return output, None
    prediction, v = output.chunk(2, dim=1)
    return prediction, (v + 1) / 2


def variance_loss(
    share: Float[Tensor, "b k h w"],
    error: Float[Tensor, "b k h w"],
    t: Int[Tensor, " b"],
    schedule: NoiseSchedule,
) -> Float[Tensor, "b k h w"]:
    r"""Compute λ L_vlb, from which the variance is learned, by pixel, in bits.

    :math:`T \cdot \mathrm{KL}(q(x_{t-1}|x_t,x_0) \| p_\theta(x_{t-1}|x_t))`, an estimate of the sum over all steps.
    Deviation: 0 at t = 0. The sampler adds no noise there, so its variance is of no use to it, and the likelihood of
    a mask in 256 grey levels says nothing.

    Source: Nichol & Dhariwal (2021), equations 4, 15 and 16.

    Args:
        share: From `split`.
        error: The true x_0 less the predicted one; no gradient flows to it.
        t: Steps of the samples, on the CPU.
        schedule: The noise schedule.

    Returns:
        The loss.
    """
    here, there = schedule.alpha_bar[t], schedule.alpha_bar[(t - 1).clamp(min=0)]
    widest = 1 - here / there  # β_t, and 0 at t = 0
    exact = widest * (1 - there) / (1 - here)  # β̃_t, the posterior's: Ho et al. (2020), equation 7
    gap = torch.where(t > 0, torch.log((1 - here) / (1 - there)), 0.0)  # between their logarithms
    # the posterior's mean moves by √ᾱ_{t−1} β_t / (1 − ᾱ_t) for each unit of x_0; squared, in units of β̃_t
    precision = torch.where(t > 0, there * (widest / (1 - here)) ** 2 / exact, 0.0)
    gap, precision, later = (
        value.to(share.device, share.dtype, non_blocking=True).reshape(-1, 1, 1, 1) for value in (gap, precision, t > 0)
    )
    wider = share * gap  # log Σ_θ / β̃_t: equation 15
    kl = 0.5 * (wider - 1 + torch.exp(-wider) * (1 + precision * error.detach().square()))
    return kl * later * (WEIGHT * schedule.num_train_timesteps / math.log(2))
