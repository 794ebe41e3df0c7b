"""Fusing the members of an ensemble into one segmentation: STAPLE, majority, mean, largest expected Dice."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from medsegdiff.errors import ShapeError
from medsegdiff.fusion.protocol import Raters
from medsegdiff.fusion.staple import Estimate, binary_staple, multi_label_staple
from medsegdiff.fusion.structures import ONE_RATER, Slab, decide_structures
from medsegdiff.labels import Labels, argmax_channels, one_hot
from medsegdiff.registry import Registry


@dataclass(frozen=True)
class Fused:
    """What several samples say together."""

    probability: Float[Tensor, "b k h w"]
    """Probability of each channel, 0 … 1."""
    sensitivity: Float[Tensor, "m b k"] | None = None
    """STAPLE: the share of the hidden truth that each sample finds."""
    specificity: Float[Tensor, "m b k"] | None = None
    """STAPLE: the share of what is not there that each sample leaves out."""
    converged: bool = True
    """STAPLE: whether the iteration came to rest."""
    mask: Bool[Tensor, "b k h w"] | None = None
    """What is decided, by channel, where that is no threshold of the probability."""


@runtime_checkable
class Fuser(Protocol):
    """Makes one segmentation of several."""

    def __call__(self, samples: Float[Tensor, "m b k h w"], *, exclusive: bool = False) -> Fused:
        """Fuse.

        Args:
            samples: Probabilities or masks in [0, 1] by member, image and channel.
            exclusive: Whether the channels are classes of which each pixel has one.

        Returns:
            What they say together.
        """


FUSERS: Registry[Fuser, dict[str, Any]] = Registry("fusion", dict)
"""The fact ``takes`` names what a fuser takes of what `decide` is told beside the members; the others ignore it.
``whole`` names that which decides on a volume at once, not slice by slice; ``each`` those that decide each pixel by
itself, so that an image may come part by part."""


@FUSERS.register(
    "mean",
    probability="the marginal, if it is told, else the mean of the members' probabilities",
    takes=("marginal",),
    each=True,
)
def mean(
    samples: Float[Tensor, "m b k h w"], *, exclusive: bool = False, marginal: Float[Tensor, "k h w"] | None = None
) -> Fused:
    """Take each pixel for what it most probably is.

    Args:
        samples: Probabilities or masks in [0, 1].
        exclusive: Makes no difference here.
        marginal: Calibrated probability of each channel, of one image; ``None``: the mean of the members.

    Returns:
        The probability.
    """
    return Fused(samples.float().mean(dim=0) if marginal is None else marginal[None].float())


@FUSERS.register("majority", probability="0 or 1", each=True)
def majority(samples: Float[Tensor, "m b k h w"], *, exclusive: bool = False) -> Fused:
    """Let the members vote. A tie is foreground; among classes, the first of those with most votes.

    Args:
        samples: Probabilities or masks in [0, 1].
        exclusive: Whether the channels are classes of which each pixel has one.

    Returns:
        0 or 1 by pixel and channel.
    """
    if not exclusive:
        return Fused(((samples >= 0.5).float().mean(dim=0) >= 0.5).float())
    votes = one_hot(argmax_channels(samples, dim=2), samples.shape[2]).mean(dim=0)
    return Fused(one_hot(argmax_channels(votes, dim=1), samples.shape[2]))


@FUSERS.register("staple", probability="posterior of the hidden truth", source="Warfield et al. (2004)")
def staple(
    samples: Float[Tensor, "m b k h w"],
    *,
    exclusive: bool = False,
    prior: float | None = None,
    tolerance: float = 1e-6,
    max_iterations: int = 200,
) -> Fused:
    """Estimate the hidden true mask from several samples and how well each sample sees it.

    Each image is estimated by itself, and each channel too unless they exclude each other.

    Source: Warfield, Zou & Wells (2004), doi:10.1109/TMI.2004.828354; MedSegDiff-V2 fuses its ensemble so
    (Implementation Details).

    Args:
        samples: Probabilities or masks in [0, 1]; what counts is which side of 0.5 (which class) they are on.
        exclusive: Whether the channels are classes of which each pixel has one.
        prior: Expected share of foreground in (0, 1); ``None`` takes the mean of the votes. Exclusive
            classes take their shares of the votes.
        tolerance: Largest change of any sensitivity or specificity at which to stop.
        max_iterations: Upper bound on steps; reaching it sets ``Fused.converged`` to False.

    Returns:
        Posterior probability, sensitivity and specificity, on the CPU.

    Raises:
        ValueError: If ``prior`` is not between 0 and 1.

    Example:
        >>> staple(torch.rand(5, 1, 1, 8, 8)).probability.shape
        torch.Size([1, 1, 8, 8])
    """
    if prior is not None and not 0 < prior < 1:
        raise ValueError(f"prior is {prior}; it must lie between 0 and 1. None takes the mean of the votes.")
    m, b, k, h, w = samples.shape
    drawn = samples.cpu().numpy()  # double precision, and loops that ask for numbers: not for an accelerator
    if exclusive:
        labels = argmax_channels(drawn, dim=2).reshape(m, b, h * w)
        estimate = partial(multi_label_staple, num_labels=k, tolerance=tolerance, max_iterations=max_iterations)
        estimates = [estimate(image) for image in labels.swapaxes(0, 1)]
    else:
        votes = (drawn >= 0.5).astype(np.uint8).reshape(m, b * k, h * w)
        estimate = partial(binary_staple, prior=prior, tolerance=tolerance, max_iterations=max_iterations)
        estimates = [estimate(channel) for channel in votes.swapaxes(0, 1)]
    return _gather(estimates, (b, k, h, w))


@FUSERS.register(
    "dice",
    probability="the marginal, if it is told, else the mean of the members' probabilities",
    takes=("marginal", "raters"),
    whole=True,
    source="Dembczyński et al. (2011)",
)
def dice(
    samples: Float[Tensor, "m b k h w"],
    *,
    exclusive: bool = False,
    marginal: Float[Tensor, "k h w"] | None = None,
    raters: Raters = ONE_RATER,
) -> Fused:
    """Decide on the masks of largest expected Dice, each structure by itself.

    Where two classes claim a pixel, it is of the one that gains more by it; the background claims none.

    Source: `medsegdiff.fusion.expected_dice`; `medsegdiff.fusion.protocol` for several raters.

    Args:
        samples: Probabilities or masks in [0, 1]; what counts is which side of 0.5 (which class) they are on.
        exclusive: Whether the channels are classes of which each pixel has one.
        marginal: Calibrated probability of each channel, of one image; ``None``: the share of members.
        raters: How the reference is made of raters; a member is what one of them might draw.

    Returns:
        The masks, and the probability that a rater draws a pixel.

    Raises:
        ConfigError: If there is no rater, or a marginal is no probability.
        ShapeError: If there is a marginal and more than one image.

    Example:
        >>> dice(torch.rand(5, 1, 1, 8, 8)).mask.shape
        torch.Size([1, 1, 8, 8])
    """
    b, k, h, w = samples.shape[1:]
    if marginal is not None and b != 1:
        raise ShapeError(f"There is one marginal for {b} images; fuse one image at a time.")
    probability = samples.float().mean(dim=0) if marginal is None else marginal[None].float()
    drawn = one_hot(argmax_channels(samples, dim=2), k) if exclusive else samples
    votes = (drawn >= 0.5).flatten(3)[:, :, int(exclusive) :].cpu().numpy()  # (m, b, structures, h*w)
    told = None if marginal is None else marginal.float().flatten(1)[int(exclusive) :].cpu().numpy()
    slabs = [Slab(image, told, votes.shape[2]) for image in votes.swapaxes(0, 1)]
    decided = partial(decide_structures, exclusive=exclusive, raters=raters)
    masks = np.stack([next(decided(partial(list, [slab]))) for slab in slabs])
    if exclusive:
        masks = np.concatenate([~masks.any(axis=1, keepdims=True), masks], axis=1)
    return Fused(probability, mask=torch.from_numpy(masks).reshape(b, k, h, w).to(samples.device))


@dataclass(frozen=True)
class Decided:
    """What the members of one image say together, and the mask that follows."""

    mask: UInt8[np.ndarray, " *shape"]
    """A label map."""
    probability: Float[Tensor, "k h w"]
    """Of each channel, 0 … 1."""
    sensitivity: Float[Tensor, "m k"] | None
    specificity: Float[Tensor, "m k"] | None
    converged: bool


def decide(
    members: Float[Tensor, "m k h w"],
    labels: Labels,
    *,
    fusion: str,
    marginal: Float[Tensor, "k h w"] | None = None,
    raters: Raters = ONE_RATER,
) -> Decided:
    """Fuse the members of one image, and decide what each pixel is.

    Args:
        members: Probabilities in [0, 1] by member and channel.
        labels: What the channels are.
        fusion: Entry of `FUSERS`.
        marginal: Calibrated probability of each channel, for fusions that take it.
        raters: How the reference is made of raters, for fusions that take it.

    Returns:
        The fused mask and what it rests on.
    """
    told = {"marginal": marginal, "raters": raters}
    taken = {name: told[name] for name in FUSERS[fusion].facts.get("takes", ())}
    fused: Fused = FUSERS.build(fusion, members[:, None], exclusive=labels.exclusive, **taken)
    probability = fused.probability[0]
    sensitivity, specificity = (None if rate is None else rate[:, 0] for rate in (fused.sensitivity, fused.specificity))
    mask = labels.decide(probability if fused.mask is None else fused.mask[0].float())
    return Decided(mask, probability, sensitivity, specificity, fused.converged)


def _gather(estimates: list[Estimate], shape: tuple[int, int, int, int]) -> Fused:
    """Put the estimates of images (or of images and channels) back into one tensor."""
    b, k, _, _ = shape

    def rates(name: str) -> Tensor:
        by_estimate = np.stack([getattr(e, name) for e in estimates], axis=1)  # (m, b or b*k, k or 1)
        return torch.from_numpy(by_estimate.reshape(-1, b, k)).float()

    posterior = torch.from_numpy(np.stack([e.posterior for e in estimates])).reshape(shape)
    converged = all(e.converged for e in estimates)
    return Fused(posterior, rates("sensitivity"), rates("specificity"), converged)
