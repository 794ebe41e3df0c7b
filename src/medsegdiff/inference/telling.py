"""What is told of a result beside its files: for its record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from medsegdiff.inference.judging import Judged, judge
from medsegdiff.inference.members import sizes_of
from medsegdiff.inference.quality import QualityModel
from medsegdiff.inference.record import ImageRecord
from medsegdiff.inference.segmentation import Segmentation
from medsegdiff.inference.writer import measures_rows, rates_of
from medsegdiff.metrics.measures import Measures
from medsegdiff.metrics.plausibility import Appearance, appearance_of


def told_of(
    result: Segmentation, model: QualityModel | None, measures: Mapping[str, Measures] | None = None
) -> dict[str, Any]:
    """Look at a result, and judge it by what calibration has taught: fields of `CaseRecord`."""
    if measures is None:
        measures = result.measures()
    incomplete = tuple(name for name, of in measures.items() if of.incomplete)
    image = _recorded(result, judge(result, model, incomplete=incomplete), measures)
    return {
        "image": image,
        "seen": _appearance(result, image),
        "rates": tuple(rates_of(result.name, result, result.labels)),
        "measures": tuple(measures_rows(result.name, measures, image.sizes)),
    }


def _recorded(result: Segmentation, judged: Judged, measures: Mapping[str, Measures]) -> ImageRecord:
    anchor, pixels = result.anchor_certainty, math.prod(result.geometry.shape)
    agreement, confidence = (_over_structures(judged.scores, name) for name in ("agreement", "confidence"))
    return ImageRecord(
        name=result.name,
        foreground={name: of.voxels / pixels for name, of in measures.items()},
        members=len(result.members),
        chosen_of=result.chosen_of,
        mean_entropy=float(result.uncertainty.entropy.mean()),
        agreement=1.0 if agreement is None else agreement,  # of a single member with itself
        confidence=confidence,
        anchor_confidence=None if anchor is None else anchor.confidence,
        anchor_entropy=None if anchor is None else anchor.entropy,
        sizes=result.sizes(),
        incomplete=tuple(name for name, of in measures.items() if of.incomplete),
        scores=judged.scores,
        quality=judged.quality,
    )


def _over_structures(scores: Mapping[str, Mapping[str, float]], name: str) -> float | None:
    values = [of[name] for of in scores.values() if name in of]
    return float(np.mean(values)) if values else None


def _appearance(result: Segmentation, image: ImageRecord) -> Appearance:
    """Look at the structure that members draw largest."""
    labels, pixels = result.labels, math.prod(result.geometry.shape)
    shares = (sizes_of(result.members, labels) / pixels).mean(axis=0)
    largest = int(np.argmax(shares))
    mask = labels.mask(result.mask, largest)
    return appearance_of(mask, agreement=image.agreement or 0.0, members=float(shares[largest]))
