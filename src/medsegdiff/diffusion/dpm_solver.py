"""Tables of DPM-Solver++: order 1, order 2 multistep, and its stochastic form."""

from __future__ import annotations

import math
from collections.abc import Sequence

from medsegdiff.diffusion.samplers import SAMPLERS, Row, Table
from medsegdiff.diffusion.schedule import Level, NoiseSchedule


@SAMPLERS.register("dpmpp-1", order=1, stochastic=False, source="Lu et al. (2022), equation 9")
def dpmpp_1_table(schedule: NoiseSchedule, times: Sequence[float]) -> Table:
    """Write DPM-Solver++(1), the exponential integrator of order 1. Source: Lu et al. (2022), equation 9."""
    return tuple(_exponential(t, now, to) for t, now, to in schedule.steps(times))


@SAMPLERS.register("dpmpp-2m", order=2, stochastic=False, source="Lu et al. (2022), algorithm 2")
def dpmpp_2m_table(schedule: NoiseSchedule, times: Sequence[float]) -> Table:
    """Write DPM-Solver++(2M): order 2 for one call per step, by remembering the previous prediction.

    The first and the last step are of order 1: there is nothing to remember yet, and no finite λ to reach.

    Source: Lu et al. (2022), DPM-Solver++, algorithm 2.
    """
    return _multistep([_exponential(t, now, to) for t, now, to in schedule.steps(times)], schedule.path(times))


@SAMPLERS.register("dpmpp-sde-2m", order=2, stochastic=True, source="Lu et al. (2022), SDE-DPM-Solver++(2M)")
def dpmpp_sde_2m_table(schedule: NoiseSchedule, times: Sequence[float]) -> Table:
    """Write SDE-DPM-Solver++(2M): the same extrapolation for the reverse SDE, with fresh noise at each step.

    Source: Lu et al. (2022), DPM-Solver++, section on the diffusion SDE.
    """
    return _multistep([_stochastic(t, now, to) for t, now, to in schedule.steps(times)], schedule.path(times))


def _exponential(t: float, now: Level, to: Level) -> Row:
    """Integrate the flow exactly for a constant x_0 (equation 9): with h the step in λ, e^−h = e^(λ_now − λ_to)."""
    return Row(t, x=to.sigma / now.sigma, x_0=-to.alpha * math.expm1(now.lam - to.lam))


def _stochastic(t: float, now: Level, to: Level) -> Row:
    """Integrate the SDE exactly for a constant x_0."""
    decay, spent = math.exp(now.lam - to.lam), -math.expm1(2 * (now.lam - to.lam))  # e^−h and 1 − e^−2h
    return Row(t, x=to.sigma / now.sigma * decay, x_0=to.alpha * spent, noise=to.sigma * math.sqrt(spent))


# Algorithm 2 of Lu et al. (2022), from level i to i + 1, with h_i = λ_{i+1} − λ_i and r_i = h_{i−1} / h_i:
#   D_i = (1 + 1/2r_i) x_0(x_i, t_i) − 1/2r_i x_0(x_{i−1}, t_{i−1})
#   x_{i+1} = σ_{i+1}/σ_i x_i − α_{i+1} (e^{−h_i} − 1) D_i
def _multistep(rows: Sequence[Row], path: Sequence[Level]) -> Table:
    """Give part of the weight of x_0 to the line through it and the previous x_0."""
    shares = [_half_inverse_ratio(path, i) for i in range(len(rows))]
    return tuple(
        Row(row.t, row.x, row.x_0 * (1 + share), -row.x_0 * share, row.noise)
        for row, share in zip(rows, shares, strict=True)
    )


def _half_inverse_ratio(path: Sequence[Level], i: int) -> float:
    """Compute 1/2r_i = h_i / 2h_{i−1} from the steps in λ; 0 where one of them is missing or infinite."""
    if i == 0 or math.isinf(path[i + 1].lam) or math.isinf(path[i - 1].lam):
        return 0.0
    return 0.5 * (path[i + 1].lam - path[i].lam) / (path[i].lam - path[i - 1].lam)
