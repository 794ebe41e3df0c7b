"""Tables of the ancestral sampler (DDPM) and of DDIM."""

from __future__ import annotations

import math
from collections.abc import Sequence

from medsegdiff.diffusion.samplers import SAMPLERS, Row, Table
from medsegdiff.diffusion.schedule import Level, NoiseSchedule


@SAMPLERS.register("ddpm", order=1, stochastic=True, source="Ho et al. (2020), equation 7")
def ddpm_table(schedule: NoiseSchedule, times: Sequence[float]) -> Table:
    r"""Write the ancestral sampler, its posterior respaced to the times given.

    :math:`q(x_s | x_t, x_0)` has the mean :math:`\alpha_{t|s}\sigma_s^2/\sigma_t^2\, x_t +
    \alpha_s\sigma_{t|s}^2/\sigma_t^2\, x_0` and the variance :math:`\sigma_{t|s}^2\sigma_s^2/\sigma_t^2`, with
    :math:`\alpha_{t|s} = \alpha_t/\alpha_s` and :math:`\sigma_{t|s}^2 = \sigma_t^2 - \alpha_{t|s}^2\sigma_s^2`:
    exact for any pair of times, so few steps do not break it as they break a table that is merely shortened.
    A network that learned the variance may widen it, up to :math:`\sigma_{t|s}^2`, which is β_t of Ho et al.

    Source: Ho et al. (2020), equations 6 and 7; equation 1 of MedSegDiff-V2; in this form Kingma et al. (2021).
    """
    return tuple(_posterior(t, now, to) for t, now, to in schedule.steps(times))


def _posterior(t: float, now: Level, to: Level) -> Row:
    alpha = now.alpha / to.alpha  # α_{t|s}
    variance = now.sigma**2 - alpha**2 * to.sigma**2  # σ²_{t|s}
    return Row(
        t,
        x=alpha * (to.sigma / now.sigma) ** 2,
        x_0=to.alpha * variance / now.sigma**2,
        noise=to.sigma * math.sqrt(max(variance, 0.0)) / now.sigma,
        widest=math.sqrt(max(variance, 0.0)),
    )


@SAMPLERS.register("ddim", order=1, stochastic=False, source="Song et al. (2021), equation 12")
def ddim_table(schedule: NoiseSchedule, times: Sequence[float], *, eta: float = 0.0) -> Table:
    """Write DDIM: deterministic with η = 0, ancestral (DDPM) with η = 1.

    Source: Song et al. (2021), Denoising Diffusion Implicit Models, equations 12 and 16.

    Args:
        schedule: The noise schedule.
        times: Falling times.
        eta: Share of the ancestral noise, in [0, 1].

    Returns:
        The table.
    """
    return tuple(_implicit(t, now, to, eta) for t, now, to in schedule.steps(times))


def _implicit(t: float, now: Level, to: Level, eta: float) -> Row:
    noise = eta * _posterior(t, now, to).noise  # equation 16
    x = math.sqrt(max(to.sigma**2 - noise**2, 0.0)) / now.sigma  # of ε = (x_t − α_t x_0) / σ_t
    return Row(t, x=x, x_0=to.alpha - x * now.alpha, noise=noise)
