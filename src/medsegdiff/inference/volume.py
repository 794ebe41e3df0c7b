"""Volumes, segmented slice by slice: cut into pictures, and put together again on the native grid."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np
from jaxtyping import Float, Shaped

from medsegdiff.config.data import Plane
from medsegdiff.data.modality import warn_of_modality
from medsegdiff.data.slicing import Slicing
from medsegdiff.data.transforms import intensity_of
from medsegdiff.errors import MedSegDiffError, memory_worded
from medsegdiff.fusion.fusers import FUSERS
from medsegdiff.fusion.structures import decide_volume
from medsegdiff.inference.choice import choose
from medsegdiff.inference.cleaning import check_cleanable, clean_part
from medsegdiff.inference.drawing import LESS, Drawing, Refused
from medsegdiff.inference.inputs import image_key
from medsegdiff.inference.parts import Part
from medsegdiff.inference.resources import check_needs, needs_of, needs_of_picture
from medsegdiff.inference.uncertainty import Uncertainty
from medsegdiff.io.atomic import make_room, release
from medsegdiff.io.dicom import DicomHeader
from medsegdiff.types import Case

MAPS = ("mask", "probability", "members", "anchor")
UNCERTAINTY = ("std", "entropy", "disagreement")
RELEASED = 16
"""Slices after which what has been written leaves the memory of the process."""
NONE = 1e-12
"""Weight of a slice that holds nothing of a channel; it counts only if all slices are so."""


def parts_of(
    cases: Iterable[Case], drawing: Drawing, *, refused: Refused | None, noted: Callable[[str], None]
) -> Iterator[tuple[Case, Part]]:
    """Segment pictures and volumes in their order: neighbouring pictures together, each volume by itself."""
    for volumes, group in itertools.groupby(cases, key=lambda case: case.image.ndim == 4):
        if not volumes:
            parts = drawing.parts(_told(group, drawing, refused=refused, noted=noted), refused=refused)
            yield from ((case, _finished(part, case, drawing)) for case, part in parts)
            continue
        for case in group:
            try:
                with memory_worded(case.name, way_out=LESS):
                    found = case, _finished(segment_volume(case, drawing, noted=noted), case, drawing)
            except MedSegDiffError as error:
                if refused is None:
                    raise
                refused(case, error)
                continue
            yield found
            del found  # it is large, and the next one is made before this name would be taken again


def _finished(part: Part, case: Case, drawing: Drawing) -> Part:
    """Clean what was drawn, and choose members among all candidates: what is said of their sizes is of clean masks."""
    labels, request = drawing.config.spec.labels, drawing.request
    clean_part(part, labels, request.cleaning, case.geometry)
    return part if request.sampling.candidates is None else choose(part, labels, count=request.sampling.members)


def _told(
    pictures: Iterable[Case], drawing: Drawing, *, refused: Refused | None, noted: Callable[[str], None]
) -> Iterator[Case]:
    """Tell of each picture what it needs, if that is much, before it is segmented."""
    config = drawing.config
    for case in pictures:
        needs = needs_of_picture(
            case.image.shape[1:],
            channels=len(case.image),
            classes=config.mask_channels,
            members=drawing.request.sampling.drawn,
            task=config.spec.labels.task,
            rows=max(run.config.data.image_size for run in drawing.runs),
        )
        try:
            check_cleanable(case.name, drawing.request.cleaning, case.geometry)
            told = check_needs(case.name, needs)
        except MedSegDiffError as error:
            if refused is None:
                raise
            refused(case, error)
            continue
        if told:
            noted(told)
        yield case


def segment_volume(case: Case, drawing: Drawing, *, noted: Callable[[str], None]) -> Part:
    """Segment a volume slice by slice, with all candidates; ``noted`` hears what a large one needs."""
    config, sampling = drawing.config, drawing.request.sampling
    check_cleanable(case.name, drawing.request.cleaning, case.geometry)
    warn_of_modality(case, config.spec.modalities)
    plane, neighbours = config.spec.plane or config.data.plane, config.data.neighbours
    slices = partial(slices_of, case, plane, shared_noise=sampling.shared_noise, neighbours=neighbours)
    drawing = drawing.settled(slices)
    needs = needs_of(
        case.geometry.shape,
        channels=len(case.image),
        classes=config.mask_channels,
        members=drawing.request.sampling.drawn,
        kept=0 if sampling.candidates is None else sampling.members,
        task=config.spec.labels.task,
        batch_size=sampling.batch_size,
        dicom=isinstance(case.geometry.header, DicomHeader),
    )
    if told := check_needs(case.name, needs):
        noted(told)
    request = drawing.request
    if "whole" not in FUSERS[sampling.fusion].facts:
        return paste(case, plane, (part for _, part in drawing.parts(slices())))
    by_slice = drawing.asked(request.with_fusion("majority"))  # until the members are known as a whole
    part = paste(case, plane, (part for _, part in by_slice.parts(slices())))
    labels = config.spec.labels
    raters = drawing.fusing.raters
    decide_volume(part.members, labels, mask=part.mask, marginal=part.probability, raters=raters)
    return part


def slices_of(
    volume: Case, plane: Plane | Literal["auto"], *, shared_noise: bool, neighbours: int = 0
) -> Iterator[Case]:
    """Cut a volume into pictures."""
    slicing, key = Slicing.of(volume.geometry, plane), image_key(volume.image)
    intensity = intensity_of(slicing.turned(volume.image))
    for index, name in enumerate(slicing.names(volume.name)):
        case = slicing.case(name, volume.image, index, intensity=intensity, neighbours=neighbours)
        yield replace(case, key=key if shared_noise else f"{key}/{index}")


def paste(volume: Case, plane: Plane | Literal["auto"], parts: Iterator[Part]) -> Part:
    """Put the parts of slices together. What is large lies in temporary files, so that memory stays bounded."""
    slicing, first = Slicing.of(volume.geometry, plane), next(parts)
    room = partial(_room, shape=volume.geometry.shape, outer=slicing.native_axis)
    given = [name for name in MAPS if getattr(first, name) is not None]
    arrays = {name: room(getattr(first, name)) for name in given}
    maps = {name: room(getattr(first.uncertainty, name)) for name in UNCERTAINTY}
    rates, certainty = VolumeRates(), first.anchor_certainty
    for index, part in enumerate(itertools.chain([first], parts)):
        for name in given:
            slicing.paste(arrays[name], index, getattr(part, name))
        for name in UNCERTAINTY:
            slicing.paste(maps[name], index, getattr(part.uncertainty, name))
        rates.add(part)
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
        uncertainty=Uncertainty(**maps),
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
