"""The forward process on masks: what is added to them, what a network is asked for, how its answer is read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from medsegdiff.config.diffusion import Coding
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.diffusion.losses import mask_loss, mean_of, split, variance_loss
from medsegdiff.diffusion.samplers import Denoised
from medsegdiff.diffusion.schedule import Level, NoiseSchedule, schedule_of
from medsegdiff.labels import Labels


def encode(mask: Float[Tensor, "b k h w"], *, coding: Coding = "signed") -> Float[Tensor, "b k h w"]:
    """Code a mask for diffusion, 0 → −1, 1 → +1, or leave it (``unit``). The signal scale b is part of the schedule."""
    return 2 * mask - 1 if coding == "signed" else mask


def decode(x_0: Float[Tensor, "*n k h w"], *, coding: Coding = "signed") -> Float[Tensor, "*n k h w"]:
    """Read a sample, which is continuous and about −1 and +1, or about 0 and 1, as probabilities in [0, 1]."""
    return ((x_0 + 1) / 2 if coding == "signed" else x_0).clamp(0, 1)


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
        self, said: Float[Tensor, "b k h w"], x_t: Float[Tensor, "b k h w"], at: Level | Noised
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

    def x_0(self, said: Tensor, x_t: Tensor, at: Level | Noised) -> Float[Tensor, "b k h w"]:
        """Take the noise off and scale."""
        return (x_t - at.sigma * said) / at.alpha


class VelocityTarget(Target):
    """v = α ε − σ x_0. Source: Salimans & Ho (2022), appendix D."""

    def truth(self, of: Noised) -> Float[Tensor, "b k h w"]:
        """Give the velocity."""
        return of.alpha * of.noise - of.sigma * of.x_0

    def x_0(self, said: Tensor, x_t: Tensor, at: Level | Noised) -> Float[Tensor, "b k h w"]:
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

    def x_0(self, said: Tensor, x_t: Tensor, at: Level | Noised) -> Float[Tensor, "b k h w"]:
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


EVIDENCE = 12.0
"""Log-odds that x_t may add to a pixel, at most."""


def pixelwise_logits(
    anchor: Float[Tensor, "b k h w"], x_t: Float[Tensor, "b k h w"], at: Level | Noised, *, coding: Coding
) -> Float[Tensor, "b k h w"]:
    r"""Compute the log-odds of the mask as if each pixel were drawn by itself, with the anchor's probability.

    By Bayes' rule :math:`\mathrm{logit}\,P(x_0 | x_t) = \ell_c + 2\alpha x_t / \sigma^2` for pixels coded −1 and +1,
    and :math:`\ell_c + \alpha (x_t - \alpha / 2) / \sigma^2` for 0 and 1; exclusive classes likewise, under a softmax.
    What a network adds to it is then what pixels have to do with each other, and what the anchor missed.

    Deviation: the paper has no such term.

    Args:
        anchor: Logits of the Condition Model; no gradient flows to them from here.
        x_t: Noisy masks.
        at: Where α and σ of x_t are found.
        coding: Of masks.

    Returns:
        Logits.
    """
    scale = at.alpha / at.sigma**2
    evidence = 2 * scale * x_t if coding == "signed" else scale * (x_t - at.alpha / 2)
    return anchor.detach() + evidence.clamp(-EVIDENCE, EVIDENCE)


@dataclass(frozen=True)
class Process:
    """The forward process of a run; training, sampling and distillation share it."""

    schedule: NoiseSchedule
    target: Target
    """What the network is asked for."""
    labels: Labels
    coding: Coding = "signed"
    """Of masks."""
    clip: bool = True
    """Whether x_0 is clipped to [−1, 1] while sampling, where the target leaves it unbounded."""
    residual: bool = False
    """Whether a network's answer is added to `pixelwise_logits`."""

    @classmethod
    def of(cls, config: ResolvedConfig) -> Process:
        """Read a configuration.

        Args:
            config: The forward process, the label space, and the weight of soft Dice.

        Returns:
            The process.
        """
        asked, labels = config.diffusion, config.spec.labels
        mask = MaskTarget(labels, asked.coding, config.loss.x_0_dice, config.loss.x_0_dice_falls)
        targets: dict[str, Target] = {"eps": NoiseTarget(), "v": VelocityTarget(), "x0": mask}
        return cls(schedule_of(asked), targets[asked.target], labels, asked.coding, asked.clip, asked.residual)

    def noisy(self, mask: Float[Tensor, "b k h w"], t: Int[Tensor, " b"], noise: Float[Tensor, "b k h w"]) -> Noised:
        """Draw x_t given the mask in one jump: α x_0 + σ ε.

        Source: Ho et al. (2020), equation 4; MedSegDiff-V2, Diffusion Process.

        Args:
            mask: 0 and 1 by channel.
            t: Steps in [0, T), on the CPU, as the schedule is.
            noise: ε, standard normal.

        Returns:
            x_t, and what it is made of.
        """
        power = self.schedule.alpha_bar[t].reshape(-1, 1, 1, 1)  # ᾱ_t = α², in double precision
        alpha, sigma = (
            torch.sqrt(part).to(mask.dtype).to(mask.device, non_blocking=True) for part in (power, 1 - power)
        )
        x_0 = encode(mask, coding=self.coding)
        return Noised(mask, x_0, noise, alpha * x_0 + sigma * noise, t, alpha, sigma)

    def completed(
        self,
        output: Float[Tensor, "b k2 h w"],
        anchor: Float[Tensor, "b k h w"] | None,
        x_t: Float[Tensor, "b k h w"],
        at: Level | Noised,
    ) -> Float[Tensor, "b k2 h w"]:
        """Add what the anchor and x_t say pixel by pixel, where a network gives only the rest (``residual``).

        Args:
            output: What the network said.
            anchor: Logits of the Condition Model.
            x_t: What the network was shown.
            at: Where α and σ of x_t are found.

        Returns:
            Logits of the mask, or the output as it was.
        """
        if not self.residual or anchor is None:
            return output
        return output + pixelwise_logits(anchor.float(), x_t, at, coding=self.coding)

    def denoised(self, output: Float[Tensor, "b k2 h w"], x_t: Float[Tensor, "b k h w"], level: Level) -> Denoised:
        """Read a network's output for the sampler.

        Args:
            output: What it said.
            x_t: What it was shown.
            level: Of x_t.

        Returns:
            x_0, and the share of the variance if that was learned.
        """
        said, share = split(output, x_t.shape[1])
        x_0 = self.target.x_0(said, x_t, level)
        return Denoised(x_0.clamp(-1, 1) if self.clip and not self.target.bounded else x_0, share)

    def loss(
        self, output: Float[Tensor, "b k2 h w"], of: Noised, *, labelled: Float[Tensor, "b 1 h w"] | None = None
    ) -> Float[Tensor, " b"]:
        """Compute L_n of equation 3, by image; a network that learns the variance adds the loss of that.

        Args:
            output: What the network said.
            of: What it was shown, and what is behind it.
            labelled: 0 where nobody labelled; ``None``: everything is labelled.

        Returns:
            The loss.
        """
        said, share = split(output, of.mask.shape[1])
        loss = self.target.loss(said, of, labelled)
        if share is None:
            return loss
        error = of.x_0 - self.target.x_0(said, of.x_t, of)
        return loss + mean_of(variance_loss(share, error, of.t, self.schedule), labelled)

    def probability(self, x_0: Float[Tensor, "*n k h w"]) -> Float[Tensor, "*n k h w"]:
        """Read samples as probabilities."""
        return decode(x_0, coding=self.coding)
