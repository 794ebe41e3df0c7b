"""Volumes, segmented slice by slice: cut into pictures, and put together again on the native grid."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from medsegdiff.data.modality import warn_of_modality
from medsegdiff.data.slicing import slices_of
from medsegdiff.errors import MedSegDiffError, memory_worded
from medsegdiff.fusion.fusers import FUSERS
from medsegdiff.fusion.structures import decide_volume
from medsegdiff.inference.choice import choose
from medsegdiff.inference.cleaning import check_cleanable, clean_part
from medsegdiff.inference.drawing import LESS, Drawing, Refused
from medsegdiff.inference.parts import Part
from medsegdiff.inference.pasting import paste
from medsegdiff.inference.resources import check_needs, needs_of, needs_of_picture
from medsegdiff.io.dicom import DicomHeader
from medsegdiff.types import Case


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
    clean_part(part, labels, request.cleaning_of(case), case.geometry)
    return part if request.sampling.candidates is None else choose(part, labels, count=request.sampling.members)


def _told(
    pictures: Iterable[Case], drawing: Drawing, *, refused: Refused | None, noted: Callable[[str], None]
) -> Iterator[Case]:
    """Tell of each picture what it needs, if that is much, before it is segmented."""
    config, fusion = drawing.config, drawing.request.sampling.fusion
    for case in pictures:
        needs = needs_of_picture(
            case.image.shape[1:],
            channels=len(case.image),
            classes=config.mask_channels,
            members=drawing.request.sampling.drawn,
            task=config.spec.labels.task,
            at_once=fusion != "dice" and "each" not in FUSERS[fusion].facts,
            maps=drawing.maps,
        )
        try:
            check_cleanable(case.name, drawing.request.cleaning_of(case), case.geometry)
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
    check_cleanable(case.name, drawing.request.cleaning_of(case), case.geometry)
    warn_of_modality(case, config.spec.modalities)
    plane, neighbours = config.plane, config.data.neighbours
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
        maps=drawing.maps,
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
