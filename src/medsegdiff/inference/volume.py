"""Volumes, segmented slice by slice: cut into pictures, and put together again on the native grid."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np
from jaxtyping import Shaped

from medsegdiff.config.data import Plane
from medsegdiff.data.slicing import Slicing
from medsegdiff.data.transforms import intensity_of
from medsegdiff.inference.inputs import image_key
from medsegdiff.inference.rates import VolumeRates
from medsegdiff.inference.segmentation import Segmentation
from medsegdiff.inference.uncertainty import Uncertainty
from medsegdiff.io.mapped import make_room, release
from medsegdiff.types import Case

MAPS = ("mask", "probability", "members", "anchor")
UNCERTAINTY = ("std", "entropy", "disagreement")
RELEASED = 16
"""Slices after which what has been written leaves the memory of the process."""


def slices_of(
    volume: Case, plane: Plane | Literal["auto"], *, shared_noise: bool, neighbours: int = 0
) -> Iterator[Case]:
    """Cut a volume into pictures."""
    slicing, key = Slicing.of(volume.geometry, plane), image_key(volume.image)
    intensity = intensity_of(slicing.turned(volume.image))
    for index, name in enumerate(slicing.names(volume.name)):
        case = slicing.case(name, volume.image, index, intensity=intensity, neighbours=neighbours)
        yield replace(case, key=key if shared_noise else f"{key}/{index}")


def assemble(volume: Case, plane: Plane | Literal["auto"], slices: Iterator[Segmentation]) -> Segmentation:
    """Put the results of slices together. What is large lies in temporary files, so that memory stays bounded."""
    slicing, first = Slicing.of(volume.geometry, plane), next(slices)
    room = partial(_room, shape=volume.geometry.shape, outer=slicing.native_axis)
    given = [name for name in MAPS if getattr(first, name) is not None]
    arrays = {name: room(getattr(first, name)) for name in given}
    maps = {name: room(getattr(first.uncertainty, name)) for name in UNCERTAINTY}
    rates = VolumeRates()
    for index, result in enumerate(itertools.chain([first], slices)):
        for name in given:
            slicing.paste(arrays[name], index, getattr(result, name))
        for name in UNCERTAINTY:
            slicing.paste(maps[name], index, getattr(result.uncertainty, name))
        rates.add(result)
        if index % RELEASED == RELEASED - 1:
            release(*arrays.values(), *maps.values())
    release(*arrays.values(), *maps.values())
    sensitivity, specificity = rates.result()
    return Segmentation(
        name=volume.name,
        mask=arrays["mask"],
        probability=arrays["probability"],
        members=arrays["members"],
        anchor=arrays.get("anchor"),
        anchor_probability=None,
        uncertainty=Uncertainty(**maps),
        sensitivity=sensitivity,
        specificity=specificity,
        image=volume.image,
        geometry=volume.geometry,
        labels=first.labels,
    )


def _room(like: np.ndarray, *, shape: tuple[int, ...], outer: int) -> Shaped[np.ndarray, "*c i j k"]:
    """Make room for a volume of what a slice gave; real numbers, which lie between 0 and 1, are kept in 16 bits."""
    dtype = np.dtype(np.float16) if np.issubdtype(like.dtype, np.floating) else like.dtype
    lead = like.shape[:-2]
    return make_room((*lead, *shape), dtype, outer=len(lead) + outer)
