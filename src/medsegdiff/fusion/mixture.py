"""One calibrated probability: what the anchor says and what the members expect, mixed as validation cases ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from scipy.optimize import minimize
from torch import Tensor

from medsegdiff.config.base import Component
from medsegdiff.fusion.mixing import LEAST, mixed, scaled

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
        both = mixed(anchor, expected, self.weight)
        a, c = (
            torch.tensor(values or (rest,) * len(both), dtype=both.dtype, device=both.device)
            for values, rest in ((self.slopes, 1.0), (self.offsets, 0.0))
        )
        return scaled(both, a, c, exclusive=exclusive)

    def nearest(self, times: Sequence[float]) -> int:
        """Find the time whose expectation counts.

        Args:
            times: That there are.

        Returns:
            Its index.
        """
        return 0 if self.time is None else int(np.argmin([abs(t - self.time) for t in times]))


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
    held: Bool[np.ndarray, " k"] | None = None,
) -> tuple[Mixture, float]:
    """Find the mixture with the best log score.

    Of a channel that nobody drew it is known but that it is rare here: whatever makes it less probable has a better
    score, until it would be found nowhere. So it is not scaled; of exclusive classes the others keep, on average, what
    they have together against it.

    Args:
        anchor: Probabilities of the anchor at n pixels, if there is one.
        expected: What the members expect at each time.
        share: Of raters that drew each pixel.
        times: Of ``expected``.
        exclusive: Whether the channels are classes of which each pixel has one.
        held: Channels that may be scaled; ``None``: all that somebody drew.

    Returns:
        The mixture and its score on these pixels, which is not above that of either part if all channels are scaled;
        that of `Mixture` itself where there is nothing to tell apart.
    """
    rows = np.flatnonzero((share.sum(dim=1).numpy() > 0) & (True if held is None else held))
    known = None if anchor is None else anchor[rows]
    found = [
        _fitted(known, of_time[rows], share[rows], weight=weight, time=time, exclusive=exclusive)
        for time, of_time in zip(times, expected, strict=True)
        for weight in (STARTS if anchor is not None else STARTS[:1])
        if len(rows) > int(exclusive)
    ]
    best = min(found, key=lambda pair: pair[1])[0] if found else Mixture()
    at_time = expected[best.nearest(times)].double()
    if found and len(rows) < len(share):
        best = _for_all(best, rows, mixed(known, at_time[rows], best.weight), channels=len(share), exclusive=exclusive)
    mixture = best(None if anchor is None else anchor.double(), at_time, exclusive=exclusive)
    return best, float(log_score(mixture, share.double(), exclusive=exclusive))


def _for_all(
    some: Mixture, rows: Int[np.ndarray, " r"], p: Float[Tensor, "r n"], *, channels: int, exclusive: bool
) -> Mixture:
    """Leave channels that are not scaled as they are, and their odds against the others, on average over pixels."""
    slopes, offsets = np.ones(channels), np.zeros(channels)
    slopes[rows], offsets[rows] = some.slopes, some.offsets
    if exclusive:
        logs, (a, c) = p.clamp(min=LEAST).log(), (torch.from_numpy(of[rows])[:, None] for of in (slopes, offsets))
        offsets[rows] -= float(((a * logs + c).logsumexp(dim=0) - logs.logsumexp(dim=0)).mean())
    return some.model_copy(update={"slopes": tuple(slopes.tolist()), "offsets": tuple(offsets.tolist())})


def _fitted(
    anchor: Tensor | None, expected: Tensor, share: Tensor, *, weight: float, time: float, exclusive: bool
) -> tuple[Mixture, float]:
    """Descend from one weight with a quasi-Newton method."""
    k, known = len(expected), None if anchor is None else anchor.double()
    expected, share = expected.double(), share.double()

    def score(values: np.ndarray) -> tuple[float, np.ndarray]:
        at = torch.tensor(values, dtype=torch.float64, requires_grad=True)
        both = mixed(known, expected, at[0])
        loss = log_score(scaled(both, at[1 : 1 + k], at[1 + k :], exclusive=exclusive), share, exclusive=exclusive)
        (slope,) = torch.autograd.grad(loss, at)
        return float(loss.detach()), slope.numpy()

    start = np.array([weight, *[1.0] * k, *[0.0] * k])
    bounds = [BOUNDS["weight"], *[BOUNDS["slope"]] * k, *[BOUNDS["offset"]] * k]
    with torch.enable_grad():
        best: Any = minimize(score, start, jac=True, method="L-BFGS-B", bounds=bounds)
    w, a, c = float(best.x[0]), best.x[1 : 1 + k], best.x[1 + k :]
    fitted = Mixture(weight=min(max(w, 0.0), 1.0), slopes=tuple(a.tolist()), offsets=tuple(c.tolist()), time=time)
    return fitted, float(best.fun)
