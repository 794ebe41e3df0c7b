"""Judging a segmentation without a reference: what its scores mean, and what is unusual about mask and image."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from medsegdiff.data.modality import strange_modality
from medsegdiff.data.slicing import Slicing
from medsegdiff.data.split import evenly
from medsegdiff.inference.quality import QualityModel, Range, StructureQuality
from medsegdiff.inference.review import Quality
from medsegdiff.inference.scores import DOUBTS, scores_of
from medsegdiff.inference.segmentation import Segmentation
from medsegdiff.io.image import canonical_geometry
from medsegdiff.metrics.likeness import SLICES, features_of, values_of
from medsegdiff.metrics.plausibility import WORDS, appearance_of
from medsegdiff.metrics.predicted_dice import bound_of
from medsegdiff.metrics.tails import together
from medsegdiff.types import Geometry, Plane

Looks = Mapping[str, Float[np.ndarray, " f"]]
"""What an image looks like, as some numbers: by kind, of `SEEN`."""
GREY, NETWORK = "grey", "network"
SEEN = {GREY: "grey values", NETWORK: "what the networks see of it"}
"""Networks miss blur and noise that are gone on their grid, or that they were trained to ignore; grey values tell no
anatomy."""
ALONG = {2: ("along axis 0", "along axis 1"), 3: ("from left to right", "from back to front", "from foot to head")}
"""Axes of a picture, and of a volume."""


@dataclass(frozen=True)
class Judged:
    """A segmentation as it was judged."""

    scores: dict[str, dict[str, float]]
    quality: dict[str, Quality]
    """By structure."""


def judge(result: Segmentation, model: QualityModel | None, *, incomplete: Collection[str] | None = None) -> Judged:
    """Score a segmentation, and where the run was calibrated, say what its scores mean.

    Args:
        result: What a model says of an image.
        model: What calibration has taught; ``None``: nothing.
        incomplete: Structures that reach the border of the image; ``None``: it is looked.

    Returns:
        Scores and quality by structure; a structure of which nothing was learned has no quality.
    """
    scores, labels = scores_of(result), result.labels
    if model is None or model.volumes != (result.image.ndim == 4):
        return Judged(scores, {})
    if incomplete is None:
        incomplete = [name for name, of in result.measures().items() if of.incomplete]
    unlike = distances(model, looks_of(result, model.plane))
    of_image, found = tuple(_of_image(result, model, unlike)), {}
    for index, name in enumerate(labels.structures):
        known = model.structures.get(name)
        if known is not None and known.score in scores[name]:
            of_mask = tuple(_of_mask(labels.mask(result.mask, index), known, cut=name in incomplete))
            found[name] = _quality(scores[name][known.score], known, model, (*of_image, *of_mask), unlike)
    return Judged(scores, found)


def quality_by(model: QualityModel, result: Segmentation) -> Mapping[str, Quality]:
    """Say what calibration has taught of a result."""
    return judge(result, model).quality


def looks_of(result: Segmentation, plane: Plane | Literal["auto"]) -> Looks:
    """Describe an image by its grey values, and by what the networks saw of it, where they show that."""
    grey = {GREY: grey_of(result.image, result.geometry, plane)}
    return grey if result.pooled is None else grey | {NETWORK: result.pooled}


def grey_of(
    image: Float[np.ndarray, "c *s"], geometry: Geometry, plane: Plane | Literal["auto"]
) -> Float[np.ndarray, " f"]:
    """Describe grey values; of a volume the means over some slices, as they are looked at, however it is stored."""
    if image.ndim == 3:
        return features_of(image)
    slicing = Slicing.of(geometry, plane)
    return np.mean([features_of(slicing.cut(image, place)) for place in evenly(range(len(slicing)), SLICES)], axis=0)


def grid_of(geometry: Geometry) -> Geometry:
    """Tell spacing and shape in the order of `ALONG`: of a volume whatever the order in which its axes are stored."""
    return canonical_geometry(geometry) if len(geometry.shape) == 3 else geometry


def distances(model: QualityModel, looks: Looks) -> dict[str, float]:
    """Tell by kind how unlike an image is to those before; infinite where it does not show what they showed."""
    return {kind: of.distance(looks[kind]) if kind in looks else math.inf for kind, of in model.likeness.items()}


def share_unlike(model: QualityModel, unlike: Mapping[str, float]) -> float:
    """Tell how many images would be as unlike: of the kinds the least share, times their number (Bonferroni)."""
    shares = [model.likeness[kind].seen.share(of) for kind, of in unlike.items()]
    return min(1.0, len(shares) * min(shares, default=1.0))


def _quality(
    score: float, known: StructureQuality, model: QualityModel, strange: tuple[str, ...], unlike: Mapping[str, float]
) -> Quality:
    predicted = None if known.dice is None else float(known.dice(np.array(score)))
    low = None if predicted is None else float(bound_of(np.array(predicted), known.margin))
    doubts = tuple(_of_score(score, predicted, known, model))
    shares = [known.doubts.share(1 - score), *([share_unlike(model, unlike)] if unlike else [])]
    return Quality(
        score=score,
        predicted_dice=predicted,
        dice_at_least=low,
        trust=together(*shares),
        review=bool(strange or doubts),
        reasons=(*doubts, *strange),
    )


def _of_score(score: float, predicted: float | None, known: StructureQuality, model: QualityModel) -> Iterator[str]:
    """Say why a score is too low."""
    doubt, limit = DOUBTS[known.score], known.acceptance
    if limit is not None and score < limit.threshold:
        yield f"{doubt} ({score:.3f}; masks pass unseen from {limit.threshold:.3f} on)"
    elif score < known.usual.low:
        yield f"{doubt} ({score:.3f}; 95 % of the calibration cases have {known.usual.low:.3f} or more)"
    if limit is None and predicted is not None and predicted < model.good:
        yield f"its Dice is expected to be {predicted:.2f}, below {model.good:g}"


def _of_mask(mask: np.ndarray, known: StructureQuality, *, cut: bool) -> Iterator[str]:
    """Say what is unusual about a mask."""
    share = float(np.count_nonzero(mask)) / max(mask.size, 1)
    if share not in known.size:
        word = "smaller" if share < known.size.low else "larger"
        yield f"it is {word} than in any calibration case" if share else "nothing was found"
    if cut and not known.border:
        yield "it reaches the border of the image, and may be cut off"
    if (suspicion := appearance_of(mask).suspicion) in ("full", "scattered"):
        yield f"it is {WORDS[suspicion]}"


def _of_image(result: Segmentation, model: QualityModel, unlike: Mapping[str, float]) -> Iterator[str]:
    """Say what is unusual about an image."""
    if told := strange_modality(result.geometry, model.modalities):
        yield told
    grid = grid_of(result.geometry)
    along = ALONG[len(grid.shape)]
    for where, size, usual in zip(along, grid.spacing, model.spacing, strict=False):
        if not _near(size, usual, tolerance=0.05):
            yield f"spacing is {size:g} mm {where}; calibration cases had {usual.low:g} to {usual.high:g}"
    for where, count, usual in zip(along, grid.shape, model.shape, strict=False):
        if not _near(float(count), usual, tolerance=0.5):
            what = f"{usual.low:g} to {usual.high:g}" if usual.low < usual.high else f"{usual.low:g}"
            yield f"the image has {count} pixels {where}; calibration cases had {what}"
    yield from _of_values(result, model.values)
    for kind, of in model.likeness.items():
        if unlike[kind] > of.usual:
            far = f"{unlike[kind]:.1f}; most lie within {of.usual:.1f}"
            yield f"the image is unlike those before, by {SEEN.get(kind, kind)} ({far})"


def _of_values(result: Segmentation, usual: Range | None) -> Iterator[str]:
    """Say so if grey values lie far beyond those of the calibration cases, or hardly differ."""
    low, high = values_of(result.image)
    if low == high:
        yield "the image is of one grey value"
    elif usual is not None:
        slack = 0.25 * (usual.high - usual.low)
        if low < usual.low - slack or high > usual.high + slack:
            yield f"its values go from {low:g} to {high:g}; calibration cases had {usual.low:g} to {usual.high:g}"


def _near(value: float, usual: Range, *, tolerance: float) -> bool:
    """Tell whether a number is among those that are usual, or nearly."""
    return usual.low / (1 + tolerance) <= value <= usual.high * (1 + tolerance)
