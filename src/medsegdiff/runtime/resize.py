"""Antialiased bilinear resizing, as PyTorch does it: along one axis at a time, a tap after the other."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from medsegdiff.data.placement import Placement

Taps = tuple[Int[np.ndarray, "n taps"], Float[np.ndarray, "n taps"]]
"""Which places of the old grid each place of the new one is made of, and how much each counts."""


@lru_cache(maxsize=32)
def taps_of(old: int, new: int) -> Taps:
    r"""Weigh the places of an axis for each place of another length: a triangle as wide as the coarser grid's step.

    Place i of the new axis lies at :math:`c = s\,(i + ½)` of the old one, :math:`s = old / new`; a place j counts
    :math:`\max(0, 1 - |j + ½ - c| / \max(s, 1))`, and the weights of each i sum to 1.

    Source: ``torch.nn.functional.interpolate`` with ``mode="bilinear", antialias=True``.

    Args:
        old: Places that there are.
        new: Places that there shall be.

    Returns:
        Indices and weights.
    """
    scale = old / new
    support = max(scale, 1.0)
    centres = scale * (np.arange(new) + 0.5)
    first = np.maximum((centres - support + 0.5).astype(np.int64), 0)
    end = np.minimum((centres + support + 0.5).astype(np.int64), old)
    places = first[:, None] + np.arange(int((end - first).max()))
    weights = np.maximum(1 - np.abs(places + 0.5 - centres[:, None]) / support, 0) * (places < end[:, None])
    return places.clip(max=old - 1), (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def resized(
    values: Float[np.ndarray, "..."], size: int, *, axis: int, part: slice = slice(None)
) -> Float[np.ndarray, "..."]:
    """Resize along one axis.

    Args:
        values: In single precision.
        size: Places that there shall be.
        axis: Negative, from the end.
        part: Of the new places, those that are wanted.

    Returns:
        The values there.
    """
    if values.shape[axis] == size:
        wanted: tuple[Any, ...] = (..., part, *(slice(None),) * (-axis - 1))
        return values[wanted]
    places, weights = (of[part] for of in taps_of(values.shape[axis], size))
    shape = (-1, *(1,) * (-axis - 1))
    taken = (values.take(of, axis=axis) * by.reshape(shape) for of, by in zip(places.T, weights.T, strict=True))
    total: np.ndarray = next(taken)
    for more in taken:
        total += more
    return total


def to_grid(values: Float[np.ndarray, "c h w"], placement: Placement) -> Float[np.ndarray, "c gh gw"]:
    """Lay an image on the model grid: resizing, then zeros around, as `medsegdiff.data.transforms.to_grid` does."""
    height, width = placement.resized
    (top, left), laid = placement.offset, np.zeros((len(values), *placement.grid), np.float32)
    laid[:, top : top + height, left : left + width] = resized(resized(values, width, axis=-1), height, axis=-2)
    return laid


def cropped(values: Float[np.ndarray, "*n gh gw"], placement: Placement) -> Float[np.ndarray, "*n _ w"]:
    """Take what lies on the image, as wide as the native grid; rows follow strip by strip."""
    (top, left), (height, width) = placement.offset, placement.resized
    return resized(values[..., top : top + height, left : left + width], placement.native[1], axis=-1)
