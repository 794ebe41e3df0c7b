"""Functions that look at each pixel by itself, a block at a time, so that what comes in between stays in the cache."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float

from medsegdiff.types import Array, namespace

BLOCK = 1 << 11
"""Pixels."""


def in_blocks(
    function: Callable[..., Array], *channels: Float[Array, "k *s"], size: int = BLOCK
) -> Float[Array, "..."]:
    """Compute a function of the channels of some maps, which gives one channel or several."""
    xp, shape = namespace(channels[0]), channels[0].shape[1:]
    flat = [values.reshape(len(values), -1) for values in channels]
    starts = range(0, flat[0].shape[1], size)
    found = xp.concatenate([function(*(values[:, start : start + size] for values in flat)) for start in starts], -1)
    return found.reshape(*found.shape[:-1], *shape)
