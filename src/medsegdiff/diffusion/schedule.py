"""Noise schedules: how much signal and how much noise x_t holds at each step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from medsegdiff.config.diffusion import DiffusionConfig
from medsegdiff.errors import ConfigError, nearest


@dataclass(frozen=True)
class Level:
    """Signal α, noise σ and half-log-SNR λ at one time, in double precision."""

    alpha: float
    sigma: float
    lam: float

    @classmethod
    def of(cls, lam: float) -> Level:
        """Find α and σ, α² + σ² = 1, from the half-log-SNR: from −∞ (no signal) to ∞ (clean)."""
        if math.isinf(lam):
            return cls(float(lam > 0), float(lam < 0), lam)
        power = math.exp(-math.log1p(math.exp(-2 * lam)))  # α² = 1 / (1 + e^−2λ)
        return cls(math.sqrt(power), math.exp(-lam) * math.sqrt(power), lam)


@dataclass(frozen=True)
class NoiseSchedule:
    r"""What a forward process does to the data, variance-preserving.

    :math:`x_t = \alpha_t x_0 + \sigma_t \epsilon` with :math:`\alpha_t = \sqrt{\bar\alpha_t}`,
    :math:`\sigma_t = \sqrt{1 - \bar\alpha_t}` and half-log-SNR :math:`\lambda_t = \log(\alpha_t / \sigma_t)`.

    Source: Ho et al. (2020), equation 4; λ as in Lu et al. (2022), DPM-Solver.
    """

    alpha_bar: Float[Tensor, " t"]
    """Signal power by step, float64, falling, in [0, 1); index 0 is the least noisy step."""

    @property
    def num_train_timesteps(self) -> int:
        """T, the number of steps of the forward process."""
        return len(self.alpha_bar)

    @cached_property
    def lam(self) -> Float[Tensor, " t"]:
        """Half-log-SNR by step; −∞ at a step without signal."""
        return 0.5 * (torch.log(self.alpha_bar) - torch.log1p(-self.alpha_bar))

    def lam_at(self, t: float) -> float:
        """Interpolate λ linearly between whole steps, for samplers that visit the times between.

        Args:
            t: Time in [0, T − 1].

        Returns:
            λ(t). Next to a last step without signal, whose λ is −∞, ᾱ is interpolated instead.
        """
        low = min(int(t), self.num_train_timesteps - 1)
        if t == low:
            return float(self.lam[low])
        if math.isinf(self.lam[low + 1]):
            return 0.5 * float(torch.logit(self.alpha_bar[low] * (low + 1 - t)))
        return float(self.lam[low] + (t - low) * (self.lam[low + 1] - self.lam[low]))

    def t_of(self, lam: float) -> float:
        """Find the time at which λ has a value: the inverse of `lam_at`.

        Args:
            lam: Finite half-log-SNR; values beyond the schedule give its first or last step.

        Returns:
            Time in [0, T − 1].
        """
        rising = self.lam.flip(0)
        above = int(torch.searchsorted(rising, torch.tensor(lam, dtype=rising.dtype)))
        above = min(max(above, 1), len(rising) - 1)
        low, high = float(rising[above - 1]), float(rising[above])
        part = 1.0 if math.isinf(low) else min(max((lam - low) / (high - low), 0.0), 1.0)
        return self.num_train_timesteps - 1 - (above - 1 + part)

    def path(self, times: Sequence[float]) -> list[Level]:
        """List the levels that a sampler passes at falling times in [0, T − 1], and then the clean mask."""
        return [Level.of(self.lam_at(t)) for t in times] + [Level.of(math.inf)]

    def steps(self, times: Sequence[float]) -> Iterator[tuple[float, Level, Level]]:
        """Walk the levels that a sampler passes, two at a time: each time, its level, the next level."""
        path = self.path(times)
        return zip(times, path[:-1], path[1:], strict=True)


def linear_alpha_bar(num_train_timesteps: int) -> Float[Tensor, " t"]:
    """Make ᾱ of the linear schedule: β from 1e-4 to 0.02 over 1000 steps, scaled for other lengths.

    Source: Ho et al. (2020), section 4; the scaling is Nichol & Dhariwal's (2021).
    """
    scale = 1000 / num_train_timesteps
    beta = torch.linspace(scale * 1e-4, min(scale * 0.02, 0.999), num_train_timesteps, dtype=torch.float64)
    return torch.cumprod(1 - beta, dim=0)


def cosine_alpha_bar(num_train_timesteps: int) -> Float[Tensor, " t"]:
    """Make ᾱ of the cosine schedule, with offset 0.008 and β at most 0.999.

    Source: Nichol & Dhariwal (2021), equation 17.
    """
    grid = torch.arange(num_train_timesteps + 1, dtype=torch.float64) / num_train_timesteps
    signal = torch.cos((grid + 0.008) / 1.008 * math.pi / 2) ** 2
    beta = (1 - signal[1:] / signal[:-1]).clamp(max=0.999)
    return torch.cumprod(1 - beta, dim=0)


ALPHA_BARS = {"linear": linear_alpha_bar, "cosine": cosine_alpha_bar}


def zero_terminal(alpha_bar: Float[Tensor, " t"]) -> Float[Tensor, " t"]:
    """Shift and scale √ᾱ so that the last step holds no signal and the first stays as it is.

    Source: Lin et al. (2024), Common Diffusion Noise Schedules and Sample Steps are Flawed, algorithm 1.

    Args:
        alpha_bar: Signal power by step.

    Returns:
        Signal power by step, 0 at the end.
    """
    root = alpha_bar.sqrt()
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2


def scale_signal(alpha_bar: Float[Tensor, " t"], scale: float) -> Float[Tensor, " t"]:
    r"""Give the schedule that x_0 coded {−b, +b} makes, seen with x_0 coded {−1, +1} and unit variance.

    :math:`\bar\alpha_b = b^2 \bar\alpha / ((b^2 - 1)\bar\alpha + 1)`: the smaller b, the less of the mask
    can be read from x_t alone, and the more training has to look at the image.

    Source: Chen (2023), On the Importance of Noise Scheduling for Diffusion Models, section 2.2.

    Args:
        alpha_bar: Signal power by step.
        scale: b > 0; 1 changes nothing.

    Returns:
        Signal power by step.
    """
    return scale**2 * alpha_bar / ((scale**2 - 1) * alpha_bar + 1)


def make_schedule(
    name: str, *, num_train_timesteps: int = 1000, signal_scale: float = 1.0, zero_terminal_snr: bool = False
) -> NoiseSchedule:
    """Build a schedule by name with its options.

    Args:
        name: ``linear`` or ``cosine``.
        num_train_timesteps: T ≥ 2.
        signal_scale: b, see `scale_signal`.
        zero_terminal_snr: Whether the last step holds no signal at all.

    Returns:
        The schedule.

    Raises:
        ConfigError: If the name is unknown.

    Example:
        >>> make_schedule("cosine", signal_scale=0.3).num_train_timesteps
        1000
    """
    if name not in ALPHA_BARS:
        raise ConfigError(f"No schedule '{name}'. Known: {', '.join(ALPHA_BARS)}.{nearest(name, ALPHA_BARS)}")
    alpha_bar = ALPHA_BARS[name](num_train_timesteps)
    if zero_terminal_snr:
        alpha_bar = zero_terminal(alpha_bar)
    return NoiseSchedule(scale_signal(alpha_bar, signal_scale))


def schedule_of(config: DiffusionConfig) -> NoiseSchedule:
    """Build the schedule that a configuration names."""
    return make_schedule(
        config.schedule,
        num_train_timesteps=config.num_train_timesteps,
        signal_scale=config.signal_scale,
        zero_terminal_snr=config.zero_terminal_snr,
    )
