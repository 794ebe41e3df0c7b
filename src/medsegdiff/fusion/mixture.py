"""One calibrated probability: what the anchor says and what the members expect, mixed as validation cases ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from scipy.optimize import minimize
from torch import Tensor

from medsegdiff.config.base import Component

LEAST = 1e-6
"""Distance that probabilities keep from 0 and 1, so that no log-odds are infinite."""
BOUNDS = {"weight": (0.0, 1.0), "slope": (0.2, 5.0), "offset": (-4.0, 4.0)}
STARTS = (0.0, 0.5, 1.0)
"""Weights of the anchor from which the fit begins: the parts themselves, unchanged, are among them."""


class Mixture(Component):
    r"""How the probability of a pixel follows from the anchor's and from what the members expect.

    .. math:: p = \sigma\big(a \, \mathrm{logit}(w\, p_{anchor} + (1 - w)\, p_{members}) + c\big)

    with a and c by structure; of exclusive classes the softmax over :math:`a_k \log p_k + c_k`.
    :math:`p_{members}` is the mean over members of what the network expects of x_0 at one time of the sampler, not a
    share of votes: of few votes that is too coarse, and STAPLE's posterior is no probability of the mask at all.

    Source: for the mean Fu et al. (2023), MELBA 2023:016, whose averages of both networks were better than either;
    for the scaling Platt (1999). Log score and Brier score are convex in the forecast, so a mixture is never worse than
    its parts are on average.
    """

    weight: float = Field(default=0.5, ge=0, le=1)
    """w, of the anchor; 0 where there is none."""
    slopes: tuple[float, ...] = ()
    """a by channel; empty: 1."""
    offsets: tuple[float, ...] = ()
    """c by channel; empty: 0."""
    time: float | None = None
    """Time of the sampler whose expectation counts; ``None``: the first."""

    def __call__(
        self, anchor: Float[Tensor, "k *s"] | None, expected: Float[Tensor, "k *s"], *, exclusive: bool
    ) -> Float[Tensor, "k *s"]:
        """Mix.

        Args:
            anchor: Probabilities of the anchor, if there is one.
            expected: What the members expect, on average.
            exclusive: Whether the channels are classes of which each pixel has one.

        Returns:
            Probabilities.
        """
        mixed = expected if anchor is None else self.weight * anchor + (1 - self.weight) * expected
        a, c = (
            torch.tensor(values or (rest,) * len(mixed), dtype=mixed.dtype, device=mixed.device)
            for values, rest in ((self.slopes, 1.0), (self.offsets, 0.0))
        )
        return scaled(mixed, a, c, exclusive=exclusive)

    def nearest(self, times: Sequence[float]) -> int:
        """Find the time whose expectation counts.

        Args:
            times: That there are.

        Returns:
            Its index.
        """
        return 0 if self.time is None else int(np.argmin([abs(t - self.time) for t in times]))


def scaled(
    p: Float[Tensor, "k *s"], slopes: Float[Tensor, " k"], offsets: Float[Tensor, " k"], *, exclusive: bool
) -> Float[Tensor, "k *s"]:
    """Scale log-odds (of exclusive classes: logarithms), and make probabilities of them again.

    Args:
        p: In [0, 1], by channel.
        slopes: a.
        offsets: c.
        exclusive: Whether the channels are classes of which each pixel has one.

    Returns:
        Probabilities.
    """
    p = p.clamp(LEAST, 1 - LEAST)
    shape = (-1, *(1,) * (p.ndim - 1))
    terms = slopes.reshape(shape) * (p.log() if exclusive else p.logit()) + offsets.reshape(shape)
    return terms.softmax(dim=0) if exclusive else terms.sigmoid()


def log_score(p: Float[Tensor, "k *s"], share: Float[Tensor, "k *s"], *, exclusive: bool) -> Float[Tensor, ""]:
    """Compute the mean negative log-likelihood of the share of raters, in nats.

    Args:
        p: Probabilities by channel.
        share: Of raters, by channel.
        exclusive: Whether the channels are classes of which each pixel has one.

    Returns:
        The mean over pixels (and over channels that may overlap).
    """
    p = p.clamp(LEAST, 1 - LEAST)
    if exclusive:
        return -(share * p.log()).sum(dim=0).mean()
    return -(share * p.log() + (1 - share) * (1 - p).log()).mean()


def fit_mixture(
    anchor: Float[Tensor, "k n"] | None,
    expected: Float[Tensor, "s k n"],
    share: Float[Tensor, "k n"],
    *,
    times: Sequence[float],
    exclusive: bool,
) -> tuple[Mixture, float]:
    """Find the mixture with the best log score.

    Args:
        anchor: Probabilities of the anchor at n pixels, if there is one.
        expected: What the members expect at each time.
        share: Of raters that drew each pixel.
        times: Of ``expected``.
        exclusive: Whether the channels are classes of which each pixel has one.

    Returns:
        The mixture and its score on these pixels, which is not above that of either part.
    """
    found = [
        _fitted(anchor, of_time, share, weight=weight, time=time, exclusive=exclusive)
        for time, of_time in zip(times, expected, strict=True)
        for weight in (STARTS if anchor is not None else STARTS[:1])
    ]
    return min(found, key=lambda pair: pair[1])


def _fitted(
    anchor: Tensor | None, expected: Tensor, share: Tensor, *, weight: float, time: float, exclusive: bool
) -> tuple[Mixture, float]:
    """Descend from one weight with a quasi-Newton method."""
    k, known = len(expected), None if anchor is None else anchor.double()
    expected, share = expected.double(), share.double()

    def score(values: np.ndarray) -> tuple[float, np.ndarray]:
        at = torch.tensor(values, dtype=torch.float64, requires_grad=True)
        mixed = expected if known is None else at[0] * known + (1 - at[0]) * expected
        loss = log_score(scaled(mixed, at[1 : 1 + k], at[1 + k :], exclusive=exclusive), share, exclusive=exclusive)
        (slope,) = torch.autograd.grad(loss, at)
        return float(loss.detach()), slope.numpy()

    start = np.array([weight, *[1.0] * k, *[0.0] * k])
    bounds = [BOUNDS["weight"], *[BOUNDS["slope"]] * k, *[BOUNDS["offset"]] * k]
    with torch.enable_grad():
        best: Any = minimize(score, start, jac=True, method="L-BFGS-B", bounds=bounds)
    w, a, c = float(best.x[0]), best.x[1 : 1 + k], best.x[1 + k :]
    fitted = Mixture(weight=min(max(w, 0.0), 1.0), slopes=tuple(a.tolist()), offsets=tuple(c.tolist()), time=time)
    return fitted, float(best.fun)
