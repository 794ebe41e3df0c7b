"""What a network may be asked for: the noise, the velocity or the mask, and how its answer is read and scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from medsegdiff.config.diffusion import Coding
from medsegdiff.diffusion.losses import mask_loss
from medsegdiff.diffusion.schedule import Level
from medsegdiff.labels import Labels
from medsegdiff.nn.losses import mean_of


def encode(mask: Float[Tensor, "b k h w"], *, coding: Coding = "signed") -> Float[Tensor, "b k h w"]:
    """Code a mask for diffusion, 0 → −1, 1 → +1, or leave it (``unit``). The signal scale b is part of the schedule."""
    return 2 * mask - 1 if coding == "signed" else mask


def decode(x_0: Float[Tensor, "*n k h w"], *, coding: Coding = "signed") -> Float[Tensor, "*n k h w"]:
    """Read a sample, which is continuous and about −1 and +1, or about 0 and 1, as probabilities in [0, 1]."""
    return ((x_0 + 1) / 2 if coding == "signed" else x_0).clamp(0, 1)


class Levels(NamedTuple):
    """Signal and noise of x_t, as tensors."""

    alpha: Float[Tensor, "#b 1 1 1"]
    sigma: Float[Tensor, "#b 1 1 1"]


@dataclass(frozen=True)
class Noised:
    """Masks on their way to noise, and all that a loss compares a network's answer with."""

    mask: Float[Tensor, "b k h w"]
    """0 and 1, or probabilities."""
    x_0: Float[Tensor, "b k h w"]
    """The mask, coded."""
    noise: Float[Tensor, "b k h w"]
    """ε, standard normal."""
    x_t: Float[Tensor, "b k h w"]
    t: Int[Tensor, " b"]
    """Steps in [0, T), on the CPU, as the schedule is."""
    alpha: Float[Tensor, "b 1 1 1"]
    sigma: Float[Tensor, "b 1 1 1"]


class Target(ABC):
    """What a network may be asked for."""

    bounded = False
    """Whether the x_0 that it gives lies in the range of masks by itself."""
    told_from_noise = True
    """Whether x_0 follows from an answer to nearly pure noise too."""

    @abstractmethod
    def truth(self, of: Noised) -> Float[Tensor, "b k h w"]:
        """Give what a network that knew the mask would say.

        Args:
            of: What it is shown, and what is behind it.

        Returns:
            The quantity.
        """

    @abstractmethod
    def x_0(
        self, said: Float[Tensor, "b k h w"], x_t: Float[Tensor, "b k h w"], at: Level | Levels | Noised
    ) -> Float[Tensor, "b k h w"]:
        """Find x_0 from what a network says.

        Args:
            said: What it said.
            x_t: What it was shown.
            at: Where α and σ of x_t are found.

        Returns:
            x_0.
        """

    def loss(
        self, said: Float[Tensor, "b k h w"], of: Noised, labelled: Float[Tensor, "b 1 h w"] | None
    ) -> Float[Tensor, " b"]:
        """Compute L_n, by image: the mean square error, as in the paper.

        Args:
            said: What the network said.
            of: What it was shown, and what is behind it.
            labelled: 0 where nobody labelled; ``None``: everything is labelled.

        Returns:
            The loss.
        """
        return mean_of((said - self.truth(of)).square(), labelled)


class NoiseTarget(Target):
    """ε. Source: Ho et al. (2020), equation 14; MedSegDiff-V2, Diffusion Process."""

    told_from_noise = False

    def truth(self, of: Noised) -> Float[Tensor, "b k h w"]:
        """Give the noise."""
        return of.noise

    def x_0(self, said: Tensor, x_t: Tensor, at: Level | Levels | Noised) -> Float[Tensor, "b k h w"]:
        """Take the noise off and scale."""
        return (x_t - at.sigma * said) / at.alpha


class VelocityTarget(Target):
    """v = α ε − σ x_0. Source: Salimans & Ho (2022), appendix D."""

    def truth(self, of: Noised) -> Float[Tensor, "b k h w"]:
        """Give the velocity."""
        return of.alpha * of.noise - of.sigma * of.x_0

    def x_0(self, said: Tensor, x_t: Tensor, at: Level | Levels | Noised) -> Float[Tensor, "b k h w"]:
        """Turn back, as α² + σ² = 1."""
        return at.alpha * x_t - at.sigma * said


@dataclass(frozen=True)
class MaskTarget(Target):
    """x_0, as logits of the mask.

    Deviation: the paper predicts noise; its literal recipe needs far longer training for the same Dice.
    """

    labels: Labels
    coding: Coding = "signed"
    dice_weight: float = 1.0
    """Of soft Dice beside cross-entropy."""
    dice_falls: bool = False
    """Whether that weight follows `decided`."""
    bounded = True

    def truth(self, of: Noised) -> Float[Tensor, "b k h w"]:
        """Give the mask, as probabilities."""
        return of.mask

    def x_0(self, said: Tensor, x_t: Tensor, at: Level | Levels | Noised) -> Float[Tensor, "b k h w"]:
        """Activate the logits and code them, whatever x_t."""
        return encode(self.labels.activate(said), coding=self.coding)

    def loss(self, said: Tensor, of: Noised, labelled: Tensor | None) -> Float[Tensor, " b"]:
        """Compute cross-entropy and soft Dice."""
        weight = self.dice_weight * decided(of) if self.dice_falls else self.dice_weight
        return mask_loss(said, of.mask, labels=self.labels, dice_weight=weight, labelled=labelled)


DECIDED_PIXELS = 1 / 64
"""Share of the grid that a structure may hold whose fate `decided` weighs."""


def decided(of: Noised) -> Float[Tensor, " b"]:
    r"""Tell how far x_t has settled the parts of a mask: from 0 (all is open) to 1.

    A part of n pixels that is there or not is told from x_t at a distance of :math:`d^2 = 4 n \alpha^2 / \sigma^2`
    between its two means, in units of the noise; given is :math:`d^2 / (d^2 + 16)`, n being 1/64 of the grid.

    Args:
        of: The noised masks, with their levels.

    Returns:
        One number per image.
    """
    pixels = DECIDED_PIXELS * of.mask.shape[-2] * of.mask.shape[-1]
    distance = 4 * pixels * (of.alpha / of.sigma).square().reshape(-1)
    return distance / (distance + 16)
