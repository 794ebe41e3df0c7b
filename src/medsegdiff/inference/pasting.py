"""Parts of the slices of a volume, put together on its native grid."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Literal

import numpy as np
from jaxtyping import Float, Shaped

from medsegdiff.data.slicing import Slicing
from medsegdiff.inference.parts import Part
from medsegdiff.inference.uncertainty import Uncertainty
from medsegdiff.io.atomic import make_room, release
from medsegdiff.types import Case, Plane

MAPS = ("mask", "probability", "members", "anchor")
UNCERTAINTY = ("std", "entropy", "disagreement")
RELEASED = 16
"""Slices after which what has been written leaves the memory of the process."""
NONE = 1e-12
"""Weight of a slice that holds nothing of a channel; it counts only if all slices are so."""


def paste(volume: Case, plane: Plane | Literal["auto"], parts: Iterator[Part]) -> Part:
    """Put the parts of slices together. What is large lies in temporary files, so that memory stays bounded."""
    slicing, first = Slicing.of(volume.geometry, plane), next(parts)
    room = partial(_room, shape=volume.geometry.shape, outer=slicing.native_axis)
    given = [name for name in MAPS if getattr(first, name) is not None]
    arrays = {name: room(getattr(first, name)) for name in given}
    maps = {name: room(of) for name in UNCERTAINTY if (of := getattr(first.uncertainty, name)) is not None}
    rates, certainty, pooled = VolumeRates(), first.anchor_certainty, list[Float[np.ndarray, " f"]]()
    for index, part in enumerate(itertools.chain([first], parts)):
        for name in given:
            slicing.paste(arrays[name], index, getattr(part, name))
        for name, of in maps.items():
            slicing.paste(of, index, getattr(part.uncertainty, name))
        rates.add(part)
        pooled += [] if part.pooled is None else [part.pooled]
        if index and certainty is not None and part.anchor_certainty is not None:
            certainty += part.anchor_certainty
        if index % RELEASED == RELEASED - 1:
            release(*arrays.values(), *maps.values())
    release(*arrays.values(), *maps.values())
    sensitivity, specificity = rates.result()
    return Part(
        mask=arrays["mask"],
        probability=arrays["probability"],
        members=arrays["members"],
        anchor=arrays.get("anchor"),
        anchor_probability=None,
        anchor_certainty=certainty,
        pooled=np.mean(pooled, axis=0) if pooled else None,
        uncertainty=Uncertainty(maps.get("std"), maps["entropy"], maps.get("disagreement")),
        sensitivity=sensitivity,
        specificity=specificity,
    )


def _room(like: np.ndarray, *, shape: tuple[int, ...], outer: int) -> Shaped[np.ndarray, "*c i j k"]:
    """Make room for a volume of what a slice gave; real numbers, which lie between 0 and 1, are kept in 16 bits."""
    dtype = np.dtype(np.float16) if np.issubdtype(like.dtype, np.floating) else like.dtype
    lead = like.shape[:-2]
    return make_room((*lead, *shape), dtype, outer=len(lead) + outer)


class VolumeRates:
    r"""Rates of a volume that is fused slice by slice: each slice's count as much as it holds of the channel.

    The share of the hidden truth that a member finds, :math:`p = \sum W D / \sum W`, is so the sum over all
    voxels, as if it were computed from the volume's posterior W; that of what it leaves out likewise.
    """

    def __init__(self) -> None:
        self._hits: np.ndarray | None = None
        self._weight: np.ndarray | None = None

    def add(self, part: Part) -> None:
        """Take a slice into account; slices of other fusions have no rates."""
        if part.sensitivity is None or part.specificity is None or part.held is None:
            return
        inside = part.held
        weight = np.stack([inside, part.probability[0].size - inside])[:, None].clip(min=NONE)  # (2, 1, k)
        hits = weight * np.stack([part.sensitivity, part.specificity])
        self._hits = hits if self._hits is None else self._hits + hits
        self._weight = weight if self._weight is None else self._weight + weight

    def result(self) -> tuple[Float[np.ndarray, "m k"], Float[np.ndarray, "m k"]] | tuple[None, None]:
        """Divide."""
        if self._hits is None or self._weight is None:
            return None, None
        sensitivity, specificity = (self._hits / self._weight).astype(np.float32)
        return sensitivity, specificity
