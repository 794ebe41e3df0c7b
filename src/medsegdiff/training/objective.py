"""The training objective: equation 3, for masks coded −1 and +1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor, nn

from medsegdiff.config.diffusion import LossConfig
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.diffusion.philox import randint, randn
from medsegdiff.diffusion.process import TARGETS, activate, add_noise, encode, levels_at, predicted_x_0
from medsegdiff.diffusion.schedule import NoiseSchedule
from medsegdiff.diffusion.variance import split, variance_loss
from medsegdiff.seeding import derive_seed
from medsegdiff.training.losses import cross_entropy, mean_of, soft_dice
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


def training_losses(model: nn.Module, batch: Batch, schedule: NoiseSchedule, config: ResolvedConfig) -> Losses:
    r"""Compute :math:`L = L_n + [t \equiv 0 \bmod \alpha](L_{dice} + \beta L_{ce})`.

    A network that learns the variance of the ancestral sampler adds the loss of that to L_n; one that has no anchor
    has no second term.
    Steps and noise of a sample follow from its position in the training stream, whatever batch it is in.

    Source: MedSegDiff-V2, equation 3.

    Args:
        model: Called as ``model(image, x_t, t)``; gives the prediction and the anchor's logits, if it has one.
        batch: Images and masks.
        schedule: The noise schedule.
        config: Target, loss, task and seed.

    Returns:
        The losses, averaged over the batch.
    """
    exclusive = config.spec.labels.exclusive
    steps, noise = draw(batch.positions, schedule, batch.mask, seed=config.train.seed)
    alpha, sigma = levels_at(schedule.alpha_bar, steps, batch.mask)
    x_0, t = encode(batch.mask, coding=config.diffusion.coding), steps.to(batch.mask.device, non_blocking=True)
    x_t = add_noise(x_0, noise, alpha, sigma)
    prediction, logits = model(batch.image, x_t, t.float())
    prediction, share = split(prediction.float(), x_0.shape[1])
    if config.diffusion.target == "x0":
        l_n = mask_loss(
            prediction, batch.mask, dice_weight=config.loss.x_0_dice, exclusive=exclusive, labelled=batch.labelled
        )
    else:
        target = TARGETS[config.diffusion.target].of(x_0, noise, alpha, sigma)
        l_n = mean_of((prediction - target).square(), batch.labelled)
    if share is not None:
        x_0_pred = predicted_x_0(
            prediction,
            x_t,
            alpha,
            sigma,
            target=config.diffusion.target,
            exclusive=exclusive,
            clip=False,
            coding=config.diffusion.coding,
        )
        l_n = l_n + mean_of(variance_loss(share, x_0 - x_0_pred, steps, schedule), batch.labelled)
    return with_anchor(l_n, logits, batch, t, config)


def with_anchor(
    l_n: Float[Tensor, " b"],
    logits: Float[Tensor, "b k h w"] | None,
    batch: Batch,
    t: Int[Tensor, " b"],
    config: ResolvedConfig,
) -> Losses:
    """Add the second term of equation 3 to the first, and average over the batch.

    Args:
        l_n: Of the Diffusion Model, by image.
        logits: Of the Condition Model; ``None`` from a network that has no anchor.
        batch: Images and masks.
        t: Steps of the samples.
        config: Loss and task.

    Returns:
        The losses.
    """
    if logits is None:
        return Losses(total=l_n.mean(), noise=l_n.mean().detach(), anchor=None)
    exclusive = config.spec.labels.exclusive
    anchor = anchor_loss(logits.float(), batch.mask, t, config.loss, exclusive=exclusive, labelled=batch.labelled)
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


def mask_loss(
    logits: Float[Tensor, "b k h w"],
    mask: Float[Tensor, "b k h w"],
    *,
    dice_weight: float,
    exclusive: bool,
    labelled: Float[Tensor, "b 1 h w"] | None = None,
) -> Float[Tensor, " b"]:
    """Compute L_n where the network predicts x_0: cross-entropy and soft Dice of the mask.

    Deviation: the paper predicts noise; its literal recipe needs far longer training for the same Dice.

    Args:
        logits: Of the mask.
        mask: 0 and 1.
        dice_weight: Of soft Dice.
        exclusive: Whether the channels are classes of which each pixel has one.
        labelled: 0 where nobody labelled.

    Returns:
        By image.
    """
    loss = cross_entropy(logits, mask, exclusive=exclusive, labelled=labelled)
    return loss + dice_weight * soft_dice(activate(logits, exclusive=exclusive), mask, labelled=labelled)


def anchor_loss(
    logits: Float[Tensor, "b k h w"],
    mask: Float[Tensor, "b k h w"],
    t: Int[Tensor, " b"],
    config: LossConfig,
    *,
    exclusive: bool,
    labelled: Float[Tensor, "b 1 h w"] | None = None,
) -> Float[Tensor, " b"]:
    """Compute the second term of equation 3, by image.

    Args:
        logits: Of the Condition Model.
        mask: 0 and 1.
        t: Steps of the samples.
        config: α, β, and how the indicator is taken.
        exclusive: Whether the channels are classes of which each pixel has one.
        labelled: 0 where nobody labelled.

    Returns:
        The weighted loss; with ``indicator`` it is 0 where t is no multiple of α.
    """
    l_dice = soft_dice(activate(logits, exclusive=exclusive), mask, labelled=labelled)
    loss = l_dice + config.beta * cross_entropy(logits, mask, exclusive=exclusive, labelled=labelled)
    if config.anchor_weighting == "expected":
        return loss / config.alpha
    return loss * (t % config.alpha == 0)
