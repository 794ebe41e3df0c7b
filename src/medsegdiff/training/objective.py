"""The training objective: equation 3, for masks coded −1 and +1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from medsegdiff.config.diffusion import LossConfig
from medsegdiff.diffusion.noise import randn
from medsegdiff.diffusion.philox import randint
from medsegdiff.diffusion.process import Process
from medsegdiff.diffusion.schedule import NoiseSchedule
from medsegdiff.diffusion.target import Noised
from medsegdiff.labels import Labels
from medsegdiff.models.base import SUPERVISIONS, Said
from medsegdiff.nn.losses import cross_entropy, soft_dice
from medsegdiff.seeding import derive_seed
from medsegdiff.types import Batch


@dataclass(frozen=True)
class Losses:
    """The loss of a batch, and its parts."""

    total: Float[Tensor, ""]
    noise: Float[Tensor, ""] | None
    """L_n: of the Diffusion Model; ``None`` where the Condition Model learns alone."""
    anchor: Float[Tensor, ""] | None
    """The weighted L_dice + β L_ce of the Condition Model; ``None`` for a network that has no anchor."""
    more: dict[str, Float[Tensor, ""]] = field(default_factory=dict)
    """What else there is, by the name it is logged under."""

    def parts(self) -> dict[str, Tensor]:
        """Name what is logged.

        Returns:
            ``loss``, and where there are such ``loss_noise``, ``loss_anchor`` and others.
        """
        named = {"loss": self.total, "loss_noise": self.noise, "loss_anchor": self.anchor, **self.more}
        return {name: value for name, value in named.items() if value is not None}


def training_losses(
    model: nn.Module, batch: Batch, process: Process, loss: LossConfig, *, seed: int, draws: int = 1
) -> Losses:
    r"""Compute :math:`L = L_n + [t \equiv 0 \bmod \alpha](L_{dice} + \beta L_{ce})`.

    A network that learns the variance of the ancestral sampler adds the loss of that to L_n; one that has no anchor
    has no second term.
    Steps and noise of a sample follow from its position in the training stream, whatever batch it is in.

    With several ``draws`` the image is looked at once and L_n is the mean over as many levels of noise, of other
    raters' masks where there are some: :math:`L_n = \frac1K \sum_k \ell(D_\theta(x_{t_k}, t_k, C(I)), y_k)`.

    Source: MedSegDiff-V2, equation 3. Deviation: K > 1; the gradient has the same mean, and less variance.

    Args:
        model: Called as ``model(image, x_t, t)``; gives the prediction and the anchor's logits, if it has one.
        batch: Images and masks.
        process: The forward process, and what the network is asked for.
        loss: α and β.
        seed: Of training.
        draws: K, noised masks per image.

    Returns:
        The losses, averaged over the batch.
    """
    masks = _in_turn(batch.masks, draws)
    t, noise = draw(batch.positions, process.schedule, batch.mask, seed=seed, draws=draws)
    noised = process.noisy(masks, t, noise)
    if loss.recycled and _chosen(batch.positions, loss.recycled, seed=seed):
        noised = _recycled(model, batch.image, noised, process)
    on_device = t.to(masks.device, non_blocking=True)
    said = Said(*model(batch.image, noised.x_t, on_device.float()))
    logits = None if said.logits is None else said.logits.repeat_interleave(draws, dim=0)
    output = process.completed(said.prediction.float(), logits, noised.x_t, noised)
    labelled = None if batch.labelled is None else batch.labelled.repeat_interleave(draws, dim=0)
    l_n = process.loss(output, noised, labelled=labelled)
    return with_anchor(_by_image(l_n, draws), said, batch, on_device, loss, labels=process.labels)


def _in_turn(masks: Sequence[Float[Tensor, "b k h w"]], draws: int) -> Float[Tensor, "n k h w"]:
    """Line up the masks that an image's draws are made of, one rater after the other, image by image."""
    return torch.stack([masks[further % len(masks)] for further in range(draws)], dim=1).flatten(0, 1)


def _by_image(values: Float[Tensor, " n"], draws: int) -> Float[Tensor, " b"]:
    """Average over the draws of each image."""
    return values.unflatten(0, (-1, draws)).mean(dim=1)


def _chosen(positions: Sequence[int], share: float, *, seed: int) -> bool:
    """Choose a share of the batches, at random but the same for the same positions."""
    return derive_seed(seed, "recycle", positions[0]) % 10_000 < 10_000 * share


@torch.no_grad()
def _recycled(model: nn.Module, image: Tensor, noised: Noised, process: Process) -> Noised:
    """Make x_t of what the network itself says from pure noise; what it shall say stays the mask.

    Source: Fu et al. (2023), recycling, of which this is the form for one step.
    """
    last = process.schedule.num_train_timesteps - 1
    t, draws = torch.full_like(noised.t, last), len(noised.t) // len(image)
    start = process.noisy(noised.mask, t, noised.noise)
    said = Said(*model(image, start.x_t, t.to(image.device).float()))
    logits = None if said.logits is None else said.logits.repeat_interleave(draws, dim=0)
    output = process.completed(said.prediction.float(), logits, start.x_t, start)
    own = process.denoised(output, start.x_t, start).x_0
    return replace(noised, x_t=noised.alpha * own + noised.sigma * noised.noise)


def with_anchor(
    l_n: Float[Tensor, " b"],
    said: Said,
    batch: Batch,
    t: Int[Tensor, " n"],
    loss: LossConfig,
    *,
    labels: Labels,
) -> Losses:
    """Add the second term of equation 3 to the first, and average over the batch.

    Args:
        l_n: Of the Diffusion Model, by image.
        said: What the network said; without logits from a network that has no anchor.
        batch: Images and masks.
        t: Steps of the samples, those of an image one after the other.
        loss: α, β, and how the indicator is taken.
        labels: The label space.

    Returns:
        The losses.
    """
    if said.logits is None:
        return Losses(total=l_n.mean(), noise=l_n.mean().detach(), anchor=None)
    anchor = supervised(said, batch, loss, labels=labels) * _by_image(anchor_weight(t, loss), len(t) // len(l_n))
    # L_n + [t ≡ 0 mod α] (L_dice + β L_ce), both (b,), then the mean over the batch
    return Losses(total=(l_n + anchor).mean(), noise=l_n.mean().detach(), anchor=anchor.mean().detach())


def anchor_losses(model: nn.Module, batch: Batch, loss: LossConfig, *, labels: Labels) -> Losses:
    r"""Compute the second term of equation 3 alone, :math:`(L_{dice} + \beta L_{ce}) / \alpha`.

    Deviation: in the paper both networks learn from every batch. The Condition Model alone takes a fraction of the
    time, and looks at more images in the same minutes.

    Args:
        model: Called as ``model(image, x_t, t)`` with no noisy mask.
        batch: Images and masks.
        loss: α and β.
        labels: The label space.

    Returns:
        The losses, averaged over the batch, without L_n.
    """
    anchor = supervised(look(model, batch.image), batch, loss, labels=labels).mean() / loss.alpha
    return Losses(total=anchor, noise=None, anchor=anchor.detach())


def look(model: nn.Module, image: Float[Tensor, "b c h w"]) -> Said:
    """Ask a network what it says of images alone, of no noisy mask."""
    none = image[:0, :1]
    return Said(*model(image, none, none.new_zeros(0)))


def supervised(said: Said, batch: Batch, loss: LossConfig, *, labels: Labels) -> Float[Tensor, " b"]:
    """Compute L_dice + β L_ce by image, on all supervised grids, or the network's own loss: the mean over raters."""
    assert said.logits is not None
    if loss.supervision is not None:
        own = SUPERVISIONS[loss.supervision].factory
        by_rater = [own(said, mask, labels=labels, labelled=batch.labelled) for mask in batch.masks]
        return torch.stack(by_rater).mean(dim=0)
    maps = [said.logits, *said.deep]
    weights = [2.0**-level for level in range(len(maps))]  # Lee et al. (2015), weighed as nnU-Net does
    total = torch.zeros_like(batch.mask[:, 0, 0, 0])
    for weight, logits in zip(weights, maps, strict=True):
        size = (logits.shape[-2], logits.shape[-1])
        known = None if batch.labelled is None else F.adaptive_avg_pool2d(batch.labelled, size).floor()
        for mask in batch.masks:
            of = F.adaptive_avg_pool2d(mask, size)
            total = total + weight * mask_terms(logits.float(), of, loss, labels=labels, labelled=known)
    return total / (sum(weights) * len(batch.masks))


def draw(
    positions: Sequence[int], schedule: NoiseSchedule, like: Float[Tensor, "b k h w"], *, seed: int, draws: int = 1
) -> tuple[Int[Tensor, " n"], Float[Tensor, "n k h w"]]:
    """Draw steps and noise for each sample.

    Args:
        positions: Of the samples in the training stream.
        schedule: Steps are uniform in [0, T), those of one sample each in its own of K equal parts.
        like: Shape and device of the noise.
        seed: Of training.
        draws: K, of each sample.

    Returns:
        t, on the CPU, and ε, on the device of ``like``; those of a sample one after the other.
    """
    keys = [derive_seed(seed, "diffuse", position) for position in positions]
    addresses = [(key, number) for key in keys for number in range(draws)]
    noise = randn(addresses, like.shape[1:], device=like.device)
    part, total = torch.arange(draws).repeat(len(positions)), schedule.num_train_timesteps
    return (part * total + torch.from_numpy(randint(addresses, total))) // draws, noise.to(like)


def anchor_weight(t: Int[Tensor, " n"], config: LossConfig) -> Float[Tensor, " n"]:
    """Weigh the second term of equation 3.

    Args:
        t: Steps of the samples.
        config: α, and how the indicator is taken.

    Returns:
        [t ≡ 0 mod α], or its mean over all steps, as t is uniform.
    """
    if config.anchor_weighting == "expected":
        return torch.full_like(t, 1 / config.alpha, dtype=torch.float32)
    return (t % config.alpha == 0).float()


def mask_terms(
    logits: Float[Tensor, "b k h w"],
    mask: Float[Tensor, "b k h w"],
    config: LossConfig,
    *,
    labels: Labels,
    labelled: Float[Tensor, "b 1 h w"] | None = None,
) -> Float[Tensor, " b"]:
    """Compute L_dice + β L_ce of the anchor, by image.

    Args:
        logits: Of the Condition Model.
        mask: 0 and 1; shares on coarser grids.
        config: β, and whether Dice is taken of all images together.
        labels: The label space.
        labelled: 0 where nobody labelled.

    Returns:
        The loss.
    """
    l_dice = soft_dice(labels.activate(logits), mask, labelled=labelled, batch=config.batch_dice)
    return l_dice + config.beta * cross_entropy(logits, mask, exclusive=labels.exclusive, labelled=labelled)
