"""The forward process on masks: what is added to them, and how a network's answer is completed and read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from medsegdiff.config.diffusion import Coding
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.diffusion.losses import split, variance_loss
from medsegdiff.diffusion.samplers import Denoised
from medsegdiff.diffusion.schedule import Level, NoiseSchedule, schedule_of
from medsegdiff.diffusion.target import Levels, MaskTarget, Noised, NoiseTarget, Target, VelocityTarget, decode, encode
from medsegdiff.labels import Labels
from medsegdiff.nn.losses import mean_of

EVIDENCE = 12.0
"""Log-odds that x_t may add to a pixel, at most."""


def pixelwise_logits(
    anchor: Float[Tensor, "b k h w"], x_t: Float[Tensor, "b k h w"], at: Level | Levels | Noised, *, coding: Coding
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
        at: Level | Levels | Noised,
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

    def denoised(
        self, output: Float[Tensor, "b k2 h w"], x_t: Float[Tensor, "b k h w"], level: Level | Levels | Noised
    ) -> Denoised:
        """Read a network's output: for the sampler, or to noise it again.

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
