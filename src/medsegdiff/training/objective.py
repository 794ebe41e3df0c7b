"""The training objective: equation 3, for masks coded −1 and +1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor, nn

from medsegdiff.config.diffusion import LossConfig
from medsegdiff.diffusion.losses import cross_entropy, soft_dice
from medsegdiff.diffusion.philox import randint, randn
from medsegdiff.diffusion.process import Process
from medsegdiff.diffusion.schedule import NoiseSchedule
from medsegdiff.labels import Labels
from medsegdiff.seeding import derive_seed
from medsegdiff.types import Batch


@dataclass(frozen=True)
class Losses:
    """The loss of a batch, and its parts."""

    total: Float[Tensor, ""]
    noise: Float[Tensor, ""]
    """L_n: of the Diffusion Model."""
    anchor: Float[Tensor, ""] | None
    """The weighted L_dice + β L_ce of the Condition Model; ``None`` for a network that has no anchor."""

    def parts(self) -> dict[str, Tensor]:
        """Name what is logged.

        Returns:
            ``loss``, ``loss_noise`` and, where there is an anchor, ``loss_anchor``.
        """
        anchor = {} if self.anchor is None else {"loss_anchor": self.anchor}
        return {"loss": self.total, "loss_noise": self.noise} | anchor


def training_losses(model: nn.Module, batch: Batch, process: Process, loss: LossConfig, *, seed: int) -> Losses:
    r"""Compute :math:`L = L_n + [t \equiv 0 \bmod \alpha](L_{dice} + \beta L_{ce})`.

    A network that learns the variance of the ancestral sampler adds the loss of that to L_n; one that has no anchor
    has no second term.
    Steps and noise of a sample follow from its position in the training stream, whatever batch it is in.

    Source: MedSegDiff-V2, equation 3.

    Args:
        model: Called as ``model(image, x_t, t)``; gives the prediction and the anchor's logits, if it has one.
        batch: Images and masks.
        process: The forward process, and what the network is asked for.
        loss: α and β.
        seed: Of training.

    Returns:
        The losses, averaged over the batch.
    """
    noised = process.noisy(batch.mask, *draw(batch.positions, process.schedule, batch.mask, seed=seed))
    t = noised.t.to(batch.mask.device, non_blocking=True)
    output, logits = model(batch.image, noised.x_t, t.float())
    l_n = process.loss(output.float(), noised, labelled=batch.labelled)
    return with_anchor(l_n, logits, batch, t, loss, labels=process.labels)


def with_anchor(
    l_n: Float[Tensor, " b"],
    logits: Float[Tensor, "b k h w"] | None,
    batch: Batch,
    t: Int[Tensor, " b"],
    loss: LossConfig,
    *,
    labels: Labels,
) -> Losses:
    """Add the second term of equation 3 to the first, and average over the batch.

    Args:
        l_n: Of the Diffusion Model, by image.
        logits: Of the Condition Model; ``None`` from a network that has no anchor.
        batch: Images and masks.
        t: Steps of the samples.
        loss: α, β, and how the indicator is taken.
        labels: The label space.

    Returns:
        The losses.
    """
    if logits is None:
        return Losses(total=l_n.mean(), noise=l_n.mean().detach(), anchor=None)
    anchor = anchor_loss(logits.float(), batch.mask, t, loss, labels=labels, labelled=batch.labelled)
    # L_n + [t ≡ 0 mod α] (L_dice + β L_ce), both (b,), then the mean over the batch
    return Losses(total=(l_n + anchor).mean(), noise=l_n.mean().detach(), anchor=anchor.mean().detach())


def draw(
    positions: Sequence[int], schedule: NoiseSchedule, like: Float[Tensor, "b k h w"], *, seed: int
) -> tuple[Int[Tensor, " b"], Float[Tensor, "b k h w"]]:
    """Draw a step and noise for each sample.

    Args:
        positions: Of the samples in the training stream.
        schedule: Steps are uniform in [0, T).
        like: Shape and device of the noise.
        seed: Of training.

    Returns:
        t, on the CPU, and ε, on the device of ``like``.
    """
    addresses = [(derive_seed(seed, "diffuse", position), 0) for position in positions]
    noise = randn(addresses, like.shape[1:], device=like.device)
    return randint(addresses, schedule.num_train_timesteps), noise.to(like)


def anchor_loss(
    logits: Float[Tensor, "b k h w"],
    mask: Float[Tensor, "b k h w"],
    t: Int[Tensor, " b"],
    config: LossConfig,
    *,
    labels: Labels,
    labelled: Float[Tensor, "b 1 h w"] | None = None,
) -> Float[Tensor, " b"]:
    """Compute the second term of equation 3, by image.

    Args:
        logits: Of the Condition Model.
        mask: 0 and 1.
        t: Steps of the samples.
        config: α, β, and how the indicator is taken.
        labels: The label space.
        labelled: 0 where nobody labelled.

    Returns:
        The weighted loss; with ``indicator`` it is 0 where t is no multiple of α.
    """
    l_dice = soft_dice(labels.activate(logits), mask, labelled=labelled)
    loss = l_dice + config.beta * cross_entropy(logits, mask, exclusive=labels.exclusive, labelled=labelled)
    if config.anchor_weighting == "expected":
        return loss / config.alpha  # E[t ≡ 0 mod α], as t is uniform
    return loss * (t % config.alpha == 0)
