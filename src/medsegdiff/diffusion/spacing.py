"""Which times a sampler visits, and the table of a named sampler for them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from medsegdiff.config.diffusion import SamplingConfig
from medsegdiff.diffusion.samplers import SAMPLERS, Table
from medsegdiff.diffusion.schedule import NoiseSchedule
from medsegdiff.errors import ConfigError, nearest


def trailing(schedule: NoiseSchedule, num_steps: int) -> list[float]:
    """Space whole steps evenly in t, from the last one on. Source: Lin et al. (2024), table 2."""
    total = schedule.num_train_timesteps
    return [float(round(total * (1 - i / num_steps)) - 1) for i in range(num_steps)]


def linspace(schedule: NoiseSchedule, num_steps: int) -> list[float]:
    """Space times evenly in t between the last step and the first, the first left out."""
    last = schedule.num_train_timesteps - 1
    return [float(t) for t in np.linspace(last, 0, num_steps + 1)[:-1]]


def logsnr(schedule: NoiseSchedule, num_steps: int) -> list[float]:
    """Space times evenly in λ, between whole steps where it must be.

    Source: Lu et al. (2022a), DPM-Solver, section 3.3.
    """
    last = schedule.num_train_timesteps - 1
    if num_steps == 1:
        return [float(last)]
    if math.isinf(schedule.lam[-1]):  # no signal: that step has no λ to count from
        grid = np.linspace(float(schedule.lam[-2]), float(schedule.lam[0]), num_steps)[1:]
        return [float(last), *(schedule.t_of(lam) for lam in grid)]
    grid = np.linspace(float(schedule.lam[-1]), float(schedule.lam[0]), num_steps)
    return [float(last), *(schedule.t_of(lam) for lam in grid[1:-1]), 0.0]


REGION_RANGE = (-6.0, -1.25)
"""λ between which regions of about 64 to 16,384 pixels are decided."""
FEW = {1: (-3.6, -3.6), 2: (-4.5, -2.25)}
"""Times within that range, where they are too few to cover it → the λ between which they come closest to it."""
FEWEST_REGIONS = 4
"""Steps of `regions` from which what is probable comes about as often as it should."""


def regions(schedule: NoiseSchedule, num_steps: int) -> list[float]:
    r"""Space times evenly in λ where regions are decided: for ensembles of 4 to 8 steps.

    A region of n pixels that are all foreground or all background is read from x_t as well as one pixel at
    :math:`\lambda + \tfrac12 \ln n`. So its fate is open before :math:`\lambda = -\tfrac12 \ln n - 2` and settled
    soon after :math:`-\tfrac12 \ln n`, whatever the schedule; steps before and after are spent on nothing. From the
    last step, where nothing is decided, the second goes straight to `REGION_RANGE`; the last gives x_0 from its end.

    With the exact denoiser, 5 steps of DPM-Solver++(2M) give a region of 64 to 16,384 pixels with probability .1 or
    .3 in .065–.076 and .265–.280 of the samples; with `logsnr` between less than .01 and .05, and .15 and .25
    (tests/oracles/test_region_calibration.py). What is smaller than about 16 pixels is rounded to its more probable
    state. Fewer than 4 steps can't cover the range; they are laid in its middle, and what is rarer than not comes too
    rarely: with probability .3, 3 steps give .20–.24, 2 steps .02–.21.
    """
    last = float(schedule.num_train_timesteps - 1)
    no_signal = math.isinf(schedule.lam[-1])
    lowest, end = float(schedule.lam[-2 if no_signal else -1]), min(REGION_RANGE[1], float(schedule.lam[0]))
    first, inner = max(lowest, REGION_RANGE[0]), max(num_steps - 1, 0)
    begins_late = not no_signal and first - lowest < 1  # the last step is where regions are decided already
    if begins_late:
        grid = np.linspace(first, end, num_steps)[1:]
    elif inner in FEW and first < FEW[inner][0]:
        grid = np.linspace(*FEW[inner], inner)
    else:
        grid = np.linspace(first, end, inner)
    return [last, *(schedule.t_of(float(lam)) for lam in grid)]


UNREADABLE = 4.0
"""By how much λ has to lie below that at which the largest region is decided."""


def tells_nothing(lam: float, pixels: int) -> bool:
    r"""Tell whether x_t holds next to nothing of any region of an image, not even of all of it.

    The evidence of n pixels has the standard deviation :math:`\sqrt n\, e^\lambda` (see `regions`), here below
    :math:`e^{-4}`: the best prediction of x_0 is then what is expected of the mask, whatever the noise.

    Args:
        lam: Half-log-SNR of x_t; −∞ … ∞.
        pixels: Of the image.

    Returns:
        Whether all members may share one prediction.
    """
    return bool(lam < -0.5 * math.log(pixels) - UNREADABLE)


SPACINGS: dict[str, Callable[[NoiseSchedule, int], list[float]]] = {
    "trailing": trailing,
    "linspace": linspace,
    "logsnr": logsnr,
    "regions": regions,
}
"""(noise schedule, number of steps) → as many falling times, the last step of the schedule first."""
COVERING = tuple(name for name in SPACINGS if name != "regions")
"""Spacings that go through all noise levels, so that more steps come ever closer to the exact flow of any data.
`regions` stops where larger structures are settled: single pixels are rounded to their likelier state."""


def table_of(config: SamplingConfig, schedule: NoiseSchedule) -> Table:
    """Write the table that a configuration names."""
    return make_table(config.sampler, schedule, num_steps=config.steps, spacing=config.spacing, eta=config.eta)


def make_table(
    sampler: str, schedule: NoiseSchedule, *, num_steps: int, spacing: str = "logsnr", eta: float = 0.0
) -> Table:
    """Write the table of a named sampler.

    Args:
        sampler: One of `SAMPLERS`.
        schedule: The noise schedule.
        num_steps: Calls of the network, from 1 to T.
        spacing: One of `SPACINGS`.
        eta: DDIM's share of ancestral noise.

    Returns:
        One row per step.

    Raises:
        ConfigError: If a name is unknown or the number of steps is not possible.
    """
    if not 1 <= num_steps <= schedule.num_train_timesteps:
        raise ConfigError(
            f"num_steps is {num_steps}; allowed is 1 … {schedule.num_train_timesteps}, the steps of the schedule."
        )
    if eta and sampler != "ddim":
        raise ConfigError(f"eta is {eta}, but only the sampler ddim has it; '{sampler}' takes 0.")
    if spacing not in SPACINGS:
        raise ConfigError(f"No spacing '{spacing}'. Known: {', '.join(SPACINGS)}.{nearest(spacing, SPACINGS)}")
    options = {"eta": eta} if eta else {}
    table: Table = SAMPLERS.build(sampler, schedule, SPACINGS[spacing](schedule, num_steps), **options)
    return table
