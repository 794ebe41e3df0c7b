"""What images look like that are not segmented: their grey values, and what networks see of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from medsegdiff.data.slicing import Slicing, slices_of
from medsegdiff.data.split import evenly
from medsegdiff.inference.drawing import Drawing
from medsegdiff.inference.inputs import ImageLike, read_case
from medsegdiff.inference.judging import GREY, NETWORK, Looks, grey_of
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.metrics.likeness import SLICES
from medsegdiff.types import Case


def looks_of_images(images: Iterable[ImageLike], segmenter: Segmenter) -> Iterator[Looks]:
    """Describe images one after the other, as results of them would be described."""
    drawing = segmenter.drawing(segmenter.request())
    return (_looks(read_case(image, number), drawing) for number, image in enumerate(images))


def _looks(case: Case, drawing: Drawing) -> Looks:
    """Describe an image; a volume by the mean over some slices."""
    seen = [of for picture in _pictures(case, drawing) if (of := drawing.pooled(picture)) is not None]
    grey = {GREY: grey_of(case.image, case.geometry, drawing.config.plane)}
    return grey | {NETWORK: np.mean(seen, axis=0)} if seen else grey


def _pictures(case: Case, drawing: Drawing) -> Iterator[Case]:
    """Give a picture, or slices from all over a volume."""
    if case.image.ndim == 3:
        yield case
        return
    config = drawing.config
    plane, neighbours = config.plane, config.data.neighbours
    chosen = set(evenly(range(len(Slicing.of(case.geometry, plane))), SLICES))
    slices = slices_of(case, plane, shared_noise=True, neighbours=neighbours)
    yield from (picture for index, picture in enumerate(slices) if index in chosen)
