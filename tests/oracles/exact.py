"""Exact denoisers of data whose distribution is known, so that what a sampler makes of them has a truth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.diffusion.process import Process
from medsegdiff.diffusion.samplers import Denoise, Table, sample
from medsegdiff.diffusion.schedule import Level, NoiseSchedule
from medsegdiff.diffusion.target import encode
from medsegdiff.inference.ensemble import EnsembleSampler
from medsegdiff.models.base import DiffusionModel
from medsegdiff.models.denoiser import ImageCondition
from medsegdiff.types import Condition

SIDE, MEMBERS = 64, 4
"""Independent pixels that are drawn for each probability: 64·64·4, so that a share is known to 0.004."""


def gaussian_denoiser(schedule: NoiseSchedule, std: float) -> Denoise:
    r"""Make the exact denoiser of Gaussian data, :math:`x_0 \sim N(0, s^2)`.

    :math:`E[x_0 | x_t] = \alpha s^2 / (\alpha^2 s^2 + \sigma^2)\, x_t`, by the rule for jointly normal variables.

    Returns:
        (x_t, t) → the mean of x_0.
    """

    def denoise(x_t: Tensor, t: float) -> Tensor:
        level = Level.of(schedule.lam_at(t))
        return level.alpha * std**2 / gaussian_spread(level, std) ** 2 * x_t

    return denoise


def gaussian_spread(level: Level, std: float) -> float:
    r"""Compute the standard deviation of x_t for Gaussian data: :math:`\sqrt{\alpha^2 s^2 + \sigma^2}`.

    The probability flow keeps x_t in units of it, so the exact end of every path is known from its start.
    """
    return math.sqrt(level.alpha**2 * std**2 + level.sigma**2)


def two_point_logits(x_t: Float[Tensor, "n k h w"], level: Level, probability: float) -> Float[Tensor, "n k h w"]:
    r"""Compute the exact logits of pixels that are foreground with a probability, each for itself.

    :math:`\log P(x_0 = 1 | x_t) / P(x_0 = -1 | x_t) = 2 \alpha x_t / \sigma^2 + \mathrm{logit}\, p` by Bayes' rule, so
    :math:`E[x_0 | x_t] = \tanh(\alpha x_t / \sigma^2 + \tfrac12 \mathrm{logit}\, p)`.

    Returns:
        Their sigmoid is the probability of foreground.
    """
    return 2 * level.alpha / level.sigma**2 * x_t + math.log(probability / (1 - probability))


def one_hot_logits(
    x_t: Float[Tensor, "n k h w"], level: Level, probabilities: Sequence[float]
) -> Float[Tensor, "n k h w"]:
    r"""Compute the exact logits of pixels that have one of K classes, coded one-hot with −1 and +1.

    :math:`\log P(k | x_t) = 2 \alpha x_{t,k} / \sigma^2 + \log p_k` and a constant, by Bayes' rule.

    Returns:
        Their softmax is the probability of each class.
    """
    prior = torch.tensor(probabilities, dtype=x_t.dtype, device=x_t.device).log()
    return 2 * level.alpha / level.sigma**2 * x_t + prior.reshape(-1, 1, 1)


def sampled_spread(schedule: NoiseSchedule, table: Table, *, std: float, start: float = 1.0) -> float:
    """Compute the standard deviation that a sampler gives to Gaussian data, exactly and without drawing anything.

    With `gaussian_denoiser` a walk is linear in x_T and in the noise of its steps, so each of them is set to 1 in
    turn, the others to 0, and the squares of what comes out add up.
    """
    num_noises = sum(1 for row in table if row.noise)
    sources = torch.eye(1 + num_noises, dtype=torch.float64)[..., None, None]  # (which is 1, which is asked for, 1, 1)
    noises = iter(sources[:, 1:, None].unbind(dim=1))
    end = sample(gaussian_denoiser(schedule, std), start * sources[:, :1], table, noise=lambda: next(noises))
    return float(end.square().sum().sqrt())


def order_of(
    schedule: NoiseSchedule,
    tables: Sequence[Table],
    *,
    parts: Sequence[float] = (0.5, 0.7, 0.9),
    stds: Sequence[float] = (0.2, 0.5, 2.0, 5.0),
) -> float:
    """Measure the order of a sampler: how fast its error on Gaussian data falls with the number of steps.

    The error is that of the spread, which is known at every time; of a stochastic sampler it is the order of the
    second moment. Walks end before clean data, because the last step, from a finite λ, is of order 1 for all. The
    root mean square over several ends and spreads of the data keeps a lucky zero from being taken for the order.

    Returns:
        The slope of log error against log steps, falling counted as positive; infinite where there is no error.
    """
    errors = [
        math.sqrt(sum(_error(schedule, table, part, std) ** 2 for part in parts for std in stds)) for table in tables
    ]
    if min(errors) == 0:
        return math.inf
    x, y = (torch.tensor([math.log(n) for n in row], dtype=torch.float64) for row in ([len(t) for t in tables], errors))
    return -float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


def _error(schedule: NoiseSchedule, table: Table, part: float, std: float) -> float:
    """Compare the spread after some of the steps with the true one, relatively."""
    steps = min(max(1, round(part * len(table))), len(table) - 1)
    start, end = (gaussian_spread(Level.of(schedule.lam_at(table[row].t)), std) for row in (0, steps))
    return sampled_spread(schedule, table[:steps], std=std, start=start) / end - 1


def foreground_share(config: ResolvedConfig, probability: float) -> float:
    """Draw an ensemble with a denoiser that knows the answer, and count the foreground.

    It goes all the way that masks of the run go: schedule, target, clipping, sampler, noise of the members.
    """
    sampling = config.sampling.model_copy(update={"members": MEMBERS, "batch_size": MEMBERS})
    signed = config.diffusion.model_copy(update={"coding": "signed"})  # masks of 0 and 1 take the same steps, shifted
    config = config.model_copy(update={"diffusion": signed})
    sampler = EnsembleSampler(ExactPixels(config, probability), config, sampling, precision="fp32")
    drawn = sampler.draw(torch.zeros(1, 1, SIDE, SIDE), ["pixels"], seed=0).probability
    if config.spec.labels.exclusive:
        return float((drawn.argmax(dim=2) == 1).double().mean())
    return float((drawn >= 0.5).double().mean()) if drawn.isfinite().all() else float("nan")


class ExactPixels(DiffusionModel):
    """Predicts what an ideal network would where pixels are independent and their probability is known."""

    def __init__(self, config: ResolvedConfig, probability: float) -> None:
        super().__init__(stride=1)
        self.asked, self.process, self.channels = config.diffusion.target, Process.of(config), config.mask_channels
        self.probability = probability

    def condition(self, image: Float[Tensor, "b c h w"]) -> ImageCondition:
        """Look at nothing; as the anchor, say what is known."""
        shares = self.shares()
        known = shares.log() if self.process.labels.exclusive else torch.logit(shares)
        return ImageCondition(known.reshape(1, -1, 1, 1).expand(len(image), -1, *image.shape[-2:]), image)

    def shares(self) -> Float[Tensor, " k"]:
        """Give the probability of each channel."""
        if not self.process.labels.exclusive:
            return torch.full((self.channels,), self.probability)
        rest = (1 - self.probability) / (self.channels - 1)
        return torch.tensor([self.probability if k == 1 else rest for k in range(self.channels)])

    def denoise(
        self, x_t: Float[Tensor, "b k h w"], time: Float[Tensor, " #b"], condition: Condition
    ) -> Float[Tensor, "b k h w"]:
        """Predict ε, x_0 or v exactly."""
        if self.process.residual:
            return torch.zeros_like(x_t)  # pixels have nothing to do with each other: there is nothing to add
        level = level_at(self.process.schedule, float(time[0]))
        if self.process.labels.exclusive:
            logits = one_hot_logits(x_t, level, self.shares().tolist())
        else:
            logits = two_point_logits(x_t, level, self.probability)
        if self.asked == "x0":
            return logits
        x_0 = encode(self.process.labels.activate(logits))
        noise = (x_t - level.alpha * x_0) / level.sigma
        return noise if self.asked == "eps" else level.alpha * noise - level.sigma * x_0


def level_at(schedule: NoiseSchedule, t: float) -> Level:
    """Find the level of a time that was rounded to single precision on its way through a network."""
    return Level.of(schedule.lam_at(min(max(t, 0.0), schedule.num_train_timesteps - 1.0)))
