"""Exact denoisers of data whose distribution is known, so that what a sampler makes of them has a truth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from medsegdiff.diffusion.samplers import Denoise, Table, sample
from medsegdiff.diffusion.schedule import Level, NoiseSchedule


def gaussian_denoiser(schedule: NoiseSchedule, std: float) -> Denoise:
    r"""Make the exact denoiser of Gaussian data, :math:`x_0 \sim N(0, s^2)`.

    :math:`E[x_0 | x_t] = \alpha s^2 / (\alpha^2 s^2 + \sigma^2)\, x_t`, by the rule for jointly normal variables.

    Args:
        schedule: The noise schedule.
        std: s > 0.

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

    Args:
        level: Of x_t.
        std: s, of x_0.

    Returns:
        Of x_t.
    """
    return math.sqrt(level.alpha**2 * std**2 + level.sigma**2)


def two_point_logits(x_t: Float[Tensor, "n k h w"], level: Level, probability: float) -> Float[Tensor, "n k h w"]:
    r"""Compute the exact logits of pixels that are foreground with a probability, each for itself.

    :math:`\log P(x_0 = 1 | x_t) / P(x_0 = -1 | x_t) = 2 \alpha x_t / \sigma^2 + \mathrm{logit}\, p` by Bayes' rule, so
    :math:`E[x_0 | x_t] = \tanh(\alpha x_t / \sigma^2 + \tfrac12 \mathrm{logit}\, p)`.

    Args:
        x_t: Noisy pixels, coded −1 and +1.
        level: Of x_t.
        probability: p, in (0, 1).

    Returns:
        Their sigmoid is the probability of foreground.
    """
    return 2 * level.alpha / level.sigma**2 * x_t + math.log(probability / (1 - probability))


def one_hot_logits(
    x_t: Float[Tensor, "n k h w"], level: Level, probabilities: Sequence[float]
) -> Float[Tensor, "n k h w"]:
    r"""Compute the exact logits of pixels that have one of K classes, coded one-hot with −1 and +1.

    :math:`\log P(k | x_t) = 2 \alpha x_{t,k} / \sigma^2 + \log p_k` and a constant, by Bayes' rule.

    Args:
        x_t: Noisy pixels.
        level: Of x_t.
        probabilities: Of the classes, which sum to 1.

    Returns:
        Their softmax is the probability of each class.
    """
    prior = torch.tensor(probabilities, dtype=x_t.dtype, device=x_t.device).log()
    return 2 * level.alpha / level.sigma**2 * x_t + prior.reshape(-1, 1, 1)


def sampled_spread(schedule: NoiseSchedule, table: Table, *, std: float, start: float = 1.0) -> float:
    """Compute the standard deviation that a sampler gives to Gaussian data, exactly and without drawing anything.

    With `gaussian_denoiser` a walk is linear in x_T and in the noise of its steps, so each of them is set to 1 in
    turn, the others to 0, and the squares of what comes out add up.

    Args:
        schedule: The noise schedule.
        table: Of the sampler, or its first rows.
        std: s, of x_0.
        start: Standard deviation of x_T.

    Returns:
        Of where the walk ends.
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

    Args:
        schedule: The noise schedule.
        tables: Of the same sampler with rising numbers of steps, at least two.
        parts: Shares of the steps after which a walk ends.
        stds: Of the data.

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
