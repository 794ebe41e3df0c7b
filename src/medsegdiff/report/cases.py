"""Pictures of the best, the median and the worst cases, read again from their files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from medsegdiff.evaluation.matching import Pairing
from medsegdiff.evaluation.scores import Measure, Scores
from medsegdiff.pictures.overlay import colour_of
from medsegdiff.pictures.panels import coloured, outlined, panel_size, plain
from medsegdiff.report.html import Card, Picture
from medsegdiff.report.slices import CaseSlice, slice_case
from medsegdiff.report.tables import label, number

EACH = 3
"""Cases that are shown of the best, the median and the worst."""
SCORES = (Measure("dice"), Measure("iou"), Measure("hd95"), Measure("ged"))
"""Said of each case, where it has them."""
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
"""Colours of the reference beside the prediction, on dark images and on bright ones."""


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
        heading.capitalize(): [card(slice_case(name, pairing), scores.of(name)) for name in names]
        for heading, names in chosen.items()
    }


def card(case: CaseSlice, numbers: Mapping[Measure, float]) -> Card:
    """Draw a case: image, raters, fused mask with the reference, uncertainty."""
    size = panel_size(case.shape, case.spacing)
    ground = np.zeros((*size, 3), np.uint8) if case.image is None else plain(case.image, size)
    pictures = [] if case.image is None else [_picture(ground, case, "image", case.where)]
    pictures += [_raters(case, ground), _fused(case, ground)]
    if case.uncertainty is not None:
        shown = coloured(case.uncertainty, size)
        pictures.append(_picture(shown, case, "uncertainty", "entropy of the probability, bright: 1 bit"))
    scores = [f"{label(of, arrow=False)} {number(numbers[of], of.metric)}" for of in SCORES if of in numbers]
    return Card(case.name, pictures, ", ".join(scores))


def _raters(case: CaseSlice, ground: np.ndarray) -> Picture:
    """Draw each rater in a colour; of several structures, each structure."""
    drawn = [
        (mask, index if len(case.structures) > 1 else rater + 1)
        for index, of in enumerate(case.structures)
        for rater, mask in enumerate(of.raters)
    ]
    pixels = outlined(ground, [mask for mask, _ in drawn], [colour_of(shade) for _, shade in drawn])
    what = "raters" if case.num_raters > 1 else "reference"
    return _picture(pixels, case, what, what if case.num_raters == 1 else f"{case.num_raters} raters")


def _fused(case: CaseSlice, ground: np.ndarray) -> Picture:
    """Draw the prediction, and the reference with gaps; it comes first, so that its dashes are on top."""
    masks = [of.reference for of in case.structures] + [of.predicted for of in case.structures]
    count = len(case.structures)
    colours = [WHITE if ground.mean() < 128 else BLACK] * count + [colour_of(index) for index in range(count)]
    pixels = outlined(ground, masks, colours, dashed=[True] * count + [False] * count)
    majority = "majority" if case.num_raters > 1 else "reference"
    return _picture(pixels, case, "prediction", f"prediction; {majority} dashed")


def swatches(pairing: Pairing) -> dict[str, str]:
    """Tell what the colours of contours mean."""
    if len(pairing.structures) > 1:
        shown = {name: colour_of(index) for index, name in enumerate(pairing.structures)}
    else:
        raters = pairing.reference.folders if pairing.reference.kind == "raters" else ("reference",)
        shown = {"prediction": colour_of(0)} | {name: colour_of(index + 1) for index, name in enumerate(raters)}
    return {name: "#{:02x}{:02x}{:02x}".format(*colour) for name, colour in shown.items()}


def _picture(pixels: np.ndarray, case: CaseSlice, what: str, caption: str) -> Picture:
    return Picture.of(pixels, f"{case.name}: {what}", caption or what)
