"""The forward process on masks, and what a network may be asked to predict of it (ε, x_0 or v)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from medsegdiff.config.diffusion import Coding

Scale = float | Tensor
"""α or σ: one number, or one per sample (b 1 1 1)."""


def encode(mask: Float[Tensor, "b k h w"], *, coding: Coding = "signed") -> Float[Tensor, "b k h w"]:
    """Code a mask for diffusion: 0 → −1, 1 → +1. The signal scale b is part of the schedule.

    Args:
        mask: 0 and 1 by channel.
        coding: ``unit`` leaves 0 and 1.

    Returns:
        x_0.
    """
    return 2 * mask - 1 if coding == "signed" else mask


def decode(x_0: Float[Tensor, "*n k h w"], *, coding: Coding = "signed") -> Float[Tensor, "*n k h w"]:
    """Read a sample as probabilities.

    Args:
        x_0: Continuous, about −1 and +1, or about 0 and 1.
        coding: Which of them.

    Returns:
        Values in [0, 1].
    """
    return ((x_0 + 1) / 2 if coding == "signed" else x_0).clamp(0, 1)


def activate(logits: Float[Tensor, "b k h w"], *, exclusive: bool) -> Float[Tensor, "b k h w"]:
    """Turn logits into probabilities.

    Args:
        logits: By channel.
        exclusive: Whether the channels are classes of which each pixel has one.

    Returns:
        Softmax over classes, or a sigmoid for each channel.
    """
    return logits.softmax(dim=1) if exclusive else logits.sigmoid()


def add_noise(
    x_0: Float[Tensor, "b k h w"], noise: Float[Tensor, "b k h w"], alpha: Scale, sigma: Scale
) -> Float[Tensor, "b k h w"]:
    """Draw x_t given x_0 in one jump: α x_0 + σ ε.

    Source: Ho et al. (2020), equation 4; MedSegDiff-V2, Diffusion Process.

    Args:
        x_0: Coded masks.
        noise: Standard normal.
        alpha: Signal level.
        sigma: Noise level.

    Returns:
        x_t.
    """
    return alpha * x_0 + sigma * noise


@dataclass(frozen=True)
class Target:
    """A quantity that a network may predict: how it is made, and how x_0 is found from it."""

    of: Callable[[Tensor, Tensor, Scale, Scale], Tensor]
    """(x_0, noise, α, σ) → what the network should say."""
    to_x_0: Callable[[Tensor, Tensor, Scale, Scale], Tensor]
    """(prediction, x_t, α, σ) → x_0."""


TARGETS = {
    "eps": Target(lambda x_0, noise, alpha, sigma: noise, lambda eps, x_t, alpha, sigma: (x_t - sigma * eps) / alpha),
    "v": Target(
        lambda x_0, noise, alpha, sigma: alpha * noise - sigma * x_0,
        lambda v, x_t, alpha, sigma: alpha * x_t - sigma * v,
    ),
}
"""ε: Ho et al. (2020), equation 14. v: Salimans & Ho (2022), appendix D. The third target, x_0, needs none of this:
the network gives logits of the mask, which `predicted_x_0` activates."""


def predicted_x_0(
    prediction: Float[Tensor, "b k h w"],
    x_t: Float[Tensor, "b k h w"],
    alpha: Scale,
    sigma: Scale,
    *,
    target: str,
    exclusive: bool,
    clip: bool,
    coding: Coding = "signed",
) -> Float[Tensor, "b k h w"]:
    """Read the network's output as x_0.

    Args:
        prediction: What the network said.
        x_t: What it was shown.
        alpha: Signal level of x_t.
        sigma: Noise level of x_t.
        target: ``x0``, or one of `TARGETS`.
        exclusive: Whether the channels are classes of which each pixel has one.
        clip: Whether x_0 found from ε or v is clipped to [−1, 1].
        coding: Of masks.

    Returns:
        x_0.
    """
    if target == "x0":
        return encode(activate(prediction, exclusive=exclusive), coding=coding)
    x_0 = TARGETS[target].to_x_0(prediction, x_t, alpha, sigma)
    return x_0.clamp(-1, 1) if clip else x_0


def levels_at(alpha_bar: Float[Tensor, " t"], t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Look up α and σ of whole steps, for training.

    Args:
        alpha_bar: Of a `NoiseSchedule`.
        t: Steps (b,) in [0, T), on the CPU, as the schedule is.
        like: A tensor whose type and device they get.

    Returns:
        α and σ (b 1 1 1).
    """
    power = alpha_bar[t].reshape(-1, 1, 1, 1)
    alpha, sigma = torch.sqrt(power).to(like.dtype), torch.sqrt(1 - power).to(like.dtype)
    return alpha.to(like.device, non_blocking=True), sigma.to(like.device, non_blocking=True)
