"""Cases of an evaluation, read again from their files: which are shown, and of volumes which slice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from medsegdiff.data.slicing import Slicing
from medsegdiff.errors import MedSegDiffError
from medsegdiff.evaluation.case import entropy, structures_of
from medsegdiff.evaluation.pairing import Pairing, grid_of
from medsegdiff.evaluation.scores import Measure, Scores
from medsegdiff.io.image import read_image
from medsegdiff.pictures.cases import CaseRow, contours
from medsegdiff.pictures.overlay import colour_of
from medsegdiff.report.html import Card, Picture, label, number
from medsegdiff.types import Geometry

Cut = Callable[[np.ndarray], np.ndarray]
"""Takes the slice out of an array on the grid of the case, whose first axes may be others."""
EACH = 3
"""Cases that are shown of the best, the median and the worst."""
SCORES = (Measure("dice"), Measure("iou"), Measure("hd95"), Measure("ged"))
"""Said of each case, where it has them."""


def choose(scores: Scores, *, each: int = EACH) -> dict[str, list[str]]:
    """Choose cases to look at by Dice, none of them twice; of few cases all."""
    names = scores.ranked("dice")
    n = len(names)
    best = min(each, -(-n // 3))
    worst = min(each, -(-(n - best) // 2))
    median = min(each, n - best - worst)
    first = min(max((n - median) // 2, best), n - worst - median)
    parts = {"best": names[:best], "median": names[first : first + median], "worst": names[n - worst :]}
    return {part: found for part, found in parts.items() if found}


def gallery(pairing: Pairing, scores: Scores, chosen: Mapping[str, Sequence[str]]) -> dict[str, list[Card]]:
    """Read cases again and draw them."""
    return {
        heading.capitalize(): [_card(slice_case(name, pairing), scores.of(name)) for name in names]
        for heading, names in chosen.items()
    }


def _card(row: CaseRow, numbers: Mapping[Measure, float]) -> Card:
    """Draw a case: image, raters, fused mask with the reference, uncertainty."""
    pictures = [Picture.of(p.pixels, f"{row.name}: {p.title}", p.note or p.title) for p in contours(row)]
    scores = [f"{label(of, arrow=False)} {number(numbers[of], of.metric)}" for of in SCORES if of in numbers]
    return Card(row.name, pictures, ", ".join(scores))


def swatches(pairing: Pairing) -> dict[str, str]:
    """Tell what the colours of contours mean."""
    if len(pairing.structures.names) > 1:
        shown = {name: colour_of(index) for index, name in enumerate(pairing.structures.names)}
    else:
        raters = pairing.reference.folders if pairing.reference.kind == "raters" else ("reference",)
        shown = {"prediction": colour_of(0)} | {name: colour_of(index + 1) for index, name in enumerate(raters)}
    return {name: "#{:02x}{:02x}{:02x}".format(*colour) for name, colour in shown.items()}


def slice_case(name: str, pairing: Pairing) -> CaseRow:
    """Read a case again and cut it where there is most to be seen."""
    geometry = grid_of(name, pairing.reference)
    cut, spacing, where = _place(name, pairing, geometry)
    raters, fused, doubt = [], [], []
    for structure in structures_of(name, pairing):
        raters.append([cut(mask) for mask in structure.raters.values()])
        fused.append(cut(structure.predicted))
        if structure.probability is not None:
            doubt.append(entropy(cut(structure.probability)))
    return CaseRow(
        name,
        image=_image(name, pairing, geometry, cut),
        raters=list(np.stack(raters, axis=1)),
        fused=np.stack(fused),
        uncertainty=np.max(doubt, axis=0) if doubt else None,
        spacing=spacing,
        note=where,
    )


def _place(name: str, pairing: Pairing, geometry: Geometry) -> tuple[Cut, tuple[float, float], str]:
    """Find out how to cut, how large the pixels are then, and how to call the slice."""
    if len(geometry.shape) == 2:
        return lambda array: array, (geometry.spacing[0], geometry.spacing[1]), ""
    slicing = Slicing.of(geometry)
    index = _best_slice(name, pairing, slicing)
    where = f"{slicing.plane} slice {index + 1} of {len(slicing)}"
    return lambda array: np.ascontiguousarray(slicing.cut(array, index)), slicing.spacing, where


def _best_slice(name: str, pairing: Pairing, slicing: Slicing) -> int:
    """Find the slice of a volume in which the references are largest, or the predictions where there are none."""
    drawn = pairing.reference.stored(name)

    def references(channel: int) -> np.ndarray:
        return pairing.reference.channel(drawn, pairing.labels, channel).sum(axis=0)

    def predicted(channel: int) -> np.ndarray:
        return pairing.predictions.reader(name)(channel)[0]

    for masks in (references, predicted):
        areas = sum(slicing.areas(masks(channel)) for channel in pairing.structures.scored)
        if np.any(areas):
            return int(np.argmax(areas))
    return slicing.middle


def _image(name: str, pairing: Pairing, geometry: Geometry, cut: Cut) -> np.ndarray | None:
    """Read the first image of a case, if there is one that can be read and lies on the grid of its masks."""
    case = pairing.cases.get(name)
    if case is None or not case.images:
        return None
    try:
        pixels, _ = read_image(case.images[0])
    except (MedSegDiffError, OSError):  # scores are known by now: a report without this image says more than none
        return None
    if pixels.shape[1:] != geometry.shape:
        return None
    return cut(pixels if len(geometry.shape) == 2 else pixels[:1])
