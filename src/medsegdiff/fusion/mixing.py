"""How probabilities of anchor and members are mixed and calibrated, of arrays of either library; `mixture` fits it."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float

from medsegdiff.types import Array, namespace

LEAST = 1e-6
"""Distance that probabilities keep from 0 and 1, so that no log-odds are infinite."""


def mixed(anchor: Float[Array, "k *s"] | None, expected: Float[Array, "k *s"], weight: Any) -> Float[Array, "k *s"]:
    """Average what the anchor says and what the members expect.

    Args:
        anchor: Probabilities of the anchor, if there is one.
        expected: What the members expect, on average.
        weight: Of the anchor, 0 … 1.

    Returns:
        Probabilities.
    """
    return expected if anchor is None else weight * anchor + (1 - weight) * expected


def scaled(
    p: Float[Array, "k *s"], slopes: Float[Array, " k"], offsets: Float[Array, " k"], *, exclusive: bool
) -> Float[Array, "k *s"]:
    """Scale log-odds (of exclusive classes: logarithms), and make probabilities of them again.

    Args:
        p: In [0, 1], by channel.
        slopes: a.
        offsets: c.
        exclusive: Whether the channels are classes of which each pixel has one.

    Returns:
        Probabilities.
    """
    xp, p = namespace(p), p.clip(LEAST, 1 - LEAST)
    shape = (-1, *(1,) * (p.ndim - 1))
    terms = slopes.reshape(shape) * xp.log(p if exclusive else p / (1 - p)) + offsets.reshape(shape)
    odds = xp.exp(terms)  # the logarithms lie between −14 and 14
    return odds / odds.sum(0) if exclusive else odds / (1 + odds)
