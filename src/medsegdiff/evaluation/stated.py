"""What ``segment.json`` states of cases without having seen a reference, and whether it was right."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from medsegdiff.evaluation.naming import by_case
from medsegdiff.evaluation.scores import Scores
from medsegdiff.inference.folder import SegmentationFolder
from medsegdiff.inference.record import ImageRecord
from medsegdiff.inference.sizes import Size
from medsegdiff.metrics.failures import by_chance, failure_scores
from medsegdiff.metrics.intervals import Interval, size_covered, size_crps, size_width
from medsegdiff.metrics.units import unit_of
from medsegdiff.types import Geometry

NAN = float("nan")
OTHER_MASKS = ("anchor", "members", "probability")
"""Folders of results whose masks are not the fused one, of which the Dice was predicted."""


def stated_of(predictions: Path, names: Collection[str], called: Mapping[str, str]) -> dict[str, ImageRecord]:
    """Look up what is stated of each case, by structure of the references: what the model ``called`` them is told.

    Sizes are not those of the anchor or of one member, the predicted Dice is that of the fused mask alone.
    """
    folder = SegmentationFolder.around(predictions)
    record = folder.read()
    if record is None:
        return {}
    inside = predictions.resolve().relative_to(folder.root.resolve()).parts
    others: dict[str, Any] = {"quality": {}} if inside[:1] and inside[0] in OTHER_MASKS else {}
    others |= {"sizes": {}} if inside[:1] == ("anchor",) or len(inside) > 1 else {}
    given = {own: name for name, own in called.items()}

    def found(image: ImageRecord) -> ImageRecord:
        sizes, quality = ({given.get(name, name): of[name] for name in of} for of in (image.sizes, image.quality))
        return image.model_copy(update={"sizes": sizes, "quality": quality, **others})

    return by_case({image.name: found(image) for image in record.images}, set(names))


def size_scores(
    truths: Bool[np.ndarray, "n *s"],
    members: Bool[np.ndarray, "m *s"] | None,
    sizes: Mapping[str, Size] | None,
    *,
    structure: str,
    geometry: Geometry,
) -> dict[str, float]:
    """Score the sizes of members, and the interval that was stated, against each reference; give the means."""
    scale, unit = unit_of(geometry)
    true = [int(np.count_nonzero(truth)) * scale for truth in truths]
    found: dict[str, float] = {}
    if members is not None:
        drawn = np.array([np.count_nonzero(member) for member in members]) * scale
        found["size_crps"] = float(np.mean([size_crps(drawn, size) for size in true]))
    if sizes:
        stated = next(iter(sizes.values())) if len(sizes) == 1 else sizes.get(structure)
        found |= _of_interval(stated if stated is not None and stated.unit == unit else None, true)
    return found


def _of_interval(stated: Size | None, true: Sequence[float]) -> dict[str, float]:
    if stated is None:
        return {"size_covered": NAN, "size_width": NAN}
    interval = Interval(stated.mean, stated.low, stated.high)
    held = float(np.mean([size_covered(interval, size) for size in true]))
    return {"size_covered": held, "size_width": size_width(interval)}


def failures(scores: Scores, stated: Mapping[str, ImageRecord]) -> dict[str, dict[str, float]]:
    """Score, over cases, how well each doubt tells where Dice is low: what is known of every case that has one."""
    risk = 1 - np.array(scores.column("dice"))
    scored = ~np.isnan(risk)
    risk = risk[scored]
    found = {
        name: failure_scores(values[scored], risk)
        for name, values in _doubts(scores, stated).items()
        if len(risk) > 1 and not np.isnan(values[scored]).any()
    }
    return found | {"random": by_chance(risk)} if found else {}


def _doubts(scores: Scores, stated: Mapping[str, ImageRecord]) -> dict[str, np.ndarray]:
    """Line up what says how doubtful a case is; NaN where it is not known."""
    nothing = ImageRecord()
    images = [stated.get(case, nothing) for case in scores.groups]

    def column(key: str) -> np.ndarray:
        return np.array([NAN if (value := getattr(image, key)) is None else value for image in images], float)

    counted = np.array(scores.column("agreement"))  # of the members that were saved, if they were
    return {
        "1 - agreement": 1 - np.where(np.isnan(counted), column("agreement"), counted),
        "1 - confidence": 1 - column("confidence"),
        "mean_entropy": column("mean_entropy"),
        "1 - anchor_confidence": 1 - column("anchor_confidence"),
        "anchor_entropy": column("anchor_entropy"),
        "1 - trust": 1 - np.array([_least_trust(image) for image in images]),
    } | {f"1 - {name}": 1 - np.array([_mean_score(image, name) for image in images]) for name in FURTHER}


FURTHER = ("fused_agreement", "anchor_dice", "steadiness", "sensitivity")
"""Scores of `medsegdiff.inference.scores`, the mean over structures, beside those that are told of an image."""


def _mean_score(image: ImageRecord, name: str) -> float:
    values = [of[name] for of in image.scores.values() if name in of]
    return float(np.mean(values)) if values else NAN


def _least_trust(image: ImageRecord) -> float:
    values = [of.trust for of in image.quality.values() if of.trust is not None]
    return min(values, default=NAN)


@dataclass(frozen=True)
class Predicted:
    """What was predicted of the Dice of a structure, and what it is, over the cases of which both are known."""

    predicted: Float[np.ndarray, " n"]
    bound: Float[np.ndarray, " n"]
    true: Float[np.ndarray, " n"]
    review: Bool[np.ndarray, " n"]
    """Whether a human was asked to look."""

    def to_dict(self) -> dict[str, float]:
        """Tell how far predictions are off, how often bounds hold, and what was accepted."""
        kept = ~self.review
        return {
            "cases": float(len(self.true)),
            "mean_error": float(np.abs(self.predicted - self.true).mean()),
            "covered": float((self.true >= self.bound).mean()),
            "accepted": float(kept.mean()),
            "dice_of_accepted": float(self.true[kept].mean()) if kept.any() else NAN,
            "dice_of_reviewed": float(self.true[~kept].mean()) if not kept.all() else NAN,
        }


def predictions_of(
    scores: Scores, stated: Mapping[str, ImageRecord], structures: Sequence[str]
) -> dict[str, Predicted]:
    """Line up what was predicted of each structure with its Dice; nothing where nothing was predicted."""
    found = {}
    for structure in structures:
        rows = []
        for case in scores.groups:
            told = stated[case].quality if case in stated else {}
            known = told.get(structure) or (next(iter(told.values())) if len(told) == len(structures) == 1 else None)
            true = scores.value(case, "dice", "" if len(structures) == 1 else structure)
            if known is not None and known.predicted_dice is not None and not np.isnan(true):
                rows.append((known.predicted_dice, known.dice_at_least or 0.0, true, known.review))
        if rows:
            predicted, bound, dice, review = np.array(rows).T
            found[structure] = Predicted(predicted, bound, dice, review.astype(bool))
    return found
