"""The sampler: one loop over a table of coefficients. `ancestral` and `dpm_solver` write the tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from medsegdiff.diffusion.schedule import NoiseSchedule
from medsegdiff.registry import Registry


class Denoised(NamedTuple):
    """What a network says."""

    x_0: Float[Tensor, "n k h w"]
    share: Float[Tensor, "n k h w"] | None = None
    """By pixel: 0 for the noise of `Row.noise`, 1 for that of `Row.widest`, between them their logarithms; ``None``
    from a network that did not learn the variance of the ancestral sampler."""

    def select(self, index: Int[Tensor, " m"]) -> Denoised:
        """Give some members, also several times."""
        return Denoised(self.x_0[index], None if self.share is None else self.share[index])


Denoise = Callable[[Tensor, float], Tensor | Denoised]
"""(x_t, t) → the prediction of x_0."""


@dataclass(frozen=True)
class Row:
    """One step: the next x is a weighted sum of x, this and the previous prediction of x_0, and fresh noise."""

    t: float
    """Time at which the network is asked, in [0, T − 1]."""
    x: float
    x_0: float
    previous: float = 0.0
    noise: float = 0.0
    widest: float = 0.0
    """The most noise that this step may add where the network learned how much; 0 where it has no say."""


Table = tuple[Row, ...]


@runtime_checkable
class TableBuilder(Protocol):
    """Writes a sampler's table for the times that it shall visit."""

    def __call__(self, schedule: NoiseSchedule, times: Sequence[float]) -> Table:
        """Write the table.

        Args:
            schedule: The noise schedule.
            times: Falling times in [0, T − 1]; after the last comes the clean mask.

        Returns:
            One row per time.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class SamplerFacts:
    """What there is to know of a sampler."""

    order: int = 1
    """By which its error falls with the number of steps."""
    stochastic: bool = False
    """Whether its steps add noise."""
    source: str = ""
    """Where it is written down."""


SAMPLERS: Registry[TableBuilder, SamplerFacts] = Registry("sampler", SamplerFacts)
SAMPLERS.expect("medsegdiff.diffusion.ancestral", "ddpm", "ddim")
SAMPLERS.expect("medsegdiff.diffusion.dpm_solver", "dpmpp-1", "dpmpp-2m", "dpmpp-sde-2m")


def sample(
    denoise: Denoise, x_T: Float[Tensor, "n k h w"], table: Table, *, noise: Callable[[], Tensor] | None = None
) -> Float[Tensor, "n k h w"]:
    """Walk from noise to masks along a table.

    Args:
        denoise: Predicts x_0 from x_t and t; what is behind it is none of the sampler's business.
        x_T: Standard normal noise; all members and images advance together.
        table: One row per step, from `make_table`.
        noise: Gives standard normal noise shaped like x_T at each call; tables that add none do without.

    Returns:
        x_0, continuous, about −1 and +1.

    Raises:
        ValueError: If the table adds noise and there is no source of it.

    Example:
        >>> from medsegdiff.diffusion.schedule import make_schedule
        >>> from medsegdiff.diffusion.spacing import make_table
        >>> table = make_table("dpmpp-2m", make_schedule("cosine"), num_steps=10)
        >>> sample(lambda x, t: torch.tanh(x), torch.randn(4, 1, 8, 8), table).shape
        torch.Size([4, 1, 8, 8])
    """
    if noise is None and any(row.noise for row in table):
        raise ValueError("This sampler adds noise at each step: pass noise=, a function that draws it.")
    x, previous = x_T, torch.zeros_like(x_T)
    for row in table:
        denoised = denoise(x, row.t)
        x_0, share = denoised if isinstance(denoised, Denoised) else (denoised, None)
        x = row.x * x + row.x_0 * x_0 + row.previous * previous
        if row.noise and noise is not None:
            x = x + _spread(row, share) * noise()
        previous = x_0
    return x


def _spread(row: Row, share: Tensor | None) -> Tensor | float:
    """Find the standard deviation of the noise of a step.

    Source: Nichol & Dhariwal (2021), equation 15.
    """
    if share is None or not row.widest:
        return row.noise
    return row.noise * (row.widest / row.noise) ** share
