"""What calibration has taught of a run's masks: their Dice without a reference, and which of them a human must see."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, ValidationError

from medsegdiff.config.base import Component
from medsegdiff.config.diffusion import SamplingConfig
from medsegdiff.errors import CheckpointError
from medsegdiff.inference.calibration import shaping
from medsegdiff.io.atomic import write_json
from medsegdiff.metrics.acceptance import Acceptance, DiceMap
from medsegdiff.metrics.likeness import Likeness

FILE = "quality.json"
"""In the folder of a run."""


class Range(Component):
    """From the least to the most that calibration cases had."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


class StructureQuality(Component):
    """What the score of a structure says."""

    score: str
    """Entry of `SCORES` that ranks best on the calibration cases."""
    dice: DiceMap | None = None
    """Score → Dice; ``None`` where there were too few patients for numbers."""
    margin: float = 0.0
    """Of the lower bound: see `medsegdiff.metrics.acceptance.fit_margin`."""
    acceptance: Acceptance | None = None
    """Which cases may pass unseen; ``None`` where nothing can be promised."""
    usual: Range
    """Of the score: 5 % and 95 % of the calibration cases."""
    size: Range
    """Pixels or voxels, as a share of the image."""
    border: bool = False
    """Whether it reached the border of its image in a calibration case."""
    aurc: Mapping[str, float] = {}
    """Of each score on the calibration cases, and of ``random`` and ``oracle``; lower is better."""


class QualityModel(Component):
    """Learned by ``medsegdiff calibrate``."""

    cases: int
    patients: int
    good: float = Field(ge=0, le=1)
    """Dice from which a mask is good."""
    risk: float = Field(gt=0, lt=1)
    """Share of accepted patients with a bad mask that is promised."""
    confidence: float = Field(gt=0, lt=1)
    """With which bounds and promises hold."""
    structures: Mapping[str, StructureQuality]
    spacing: tuple[Range, ...] = ()
    """By axis, in mm; of volumes."""
    likeness: Likeness | None = None
    """What images looked like."""
    volumes: bool = False
    """Whether those cases were volumes: pictures are judged by pictures, and volumes by volumes."""
    sampling: SamplingConfig
    """How those cases were segmented; their masks were not cleaned."""
    version: int = 1

    @classmethod
    def of_run(cls, folder: Path) -> QualityModel | None:
        """Read what a run has; nothing where it was not calibrated."""
        file = folder / FILE
        if not file.is_file():
            return None
        try:
            return cls.model_validate(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, ValidationError) as error:
            raise CheckpointError(
                f"{file}: can't be read ({error}). Write it anew with 'medsegdiff calibrate', or remove it."
            ) from error

    def fits(self, sampling: SamplingConfig) -> bool:
        """Tell whether masks are made as those of the calibration were: fusion counts too, as masks are judged."""
        same = self.sampling.fusion == sampling.fusion
        return same and shaping(self.sampling, volumes=True) == shaping(sampling, volumes=True)

    def save(self, folder: Path) -> None:
        """Write it into a run."""
        write_json(folder / FILE, self.model_dump(mode="json"))


class Quality(Component):
    """What is known of a structure's mask without a reference."""

    score: float
    """The one that ranks best on calibration cases, in [0, 1]; the higher, the better the mask seems."""
    predicted_dice: float | None = None
    """``None`` where there were too few patients for numbers."""
    dice_at_least: float | None = None
    """It is below this in one of ten cases."""
    review: bool = False
    """Whether a human must look at it."""
    reasons: tuple[str, ...] = ()
    """Why, in words; what is unusual is said of accepted masks too."""


ROW = (
    "name",
    "structure",
    "predicted_dice",
    "dice_at_least",
    "score",
    "size",
    "low",
    "high",
    "unit",
    "flag",
    "reasons",
)
"""Columns of ``quality.csv``."""


@dataclass(frozen=True)
class Review:
    """Which further masks a human shall see."""

    below: float | None = None
    """Those whose predicted Dice is below this."""
    share: float | None = None
    """This share of the images, the worst first."""


def reviewed(judged: Sequence[Mapping[str, Quality]], review: Review) -> list[dict[str, Quality]]:
    """Flag what was asked for beside what calibration flags.

    Args:
        judged: By image, its structures.
        review: What is asked for.

    Returns:
        By image.
    """
    chosen = worst_of([rank_of(image) for image in judged], review)
    return [flagged(image, review, among_worst=place in chosen) for place, image in enumerate(judged)]


def rank_of(image: Mapping[str, Quality]) -> float:
    """Rank an image by its worst structure; the lower, the worse."""
    return min(map(_rank, image.values()), default=math.inf)


def worst_of(ranks: Sequence[float], review: Review) -> set[int]:
    """Choose the share of the images that is asked for, by their places."""
    most = 0 if review.share is None else math.ceil(round(review.share * len(ranks), 9))
    return set(np.argsort(ranks, kind="stable")[:most].tolist())


def flagged(image: Mapping[str, Quality], review: Review, *, among_worst: bool) -> dict[str, Quality]:
    """Flag the structures of an image."""
    return {name: _asked(of, review, among_worst=among_worst) for name, of in image.items()}


def _rank(quality: Quality) -> float:
    return quality.score if quality.dice_at_least is None else quality.dice_at_least


def _asked(quality: Quality, review: Review, *, among_worst: bool) -> Quality:
    told = []
    predicted = quality.predicted_dice
    if review.below is not None and predicted is not None and predicted < review.below:
        told.append(f"its Dice is expected to be {predicted:.2f}, below the {review.below:g} that was asked for")
    if among_worst:
        told.append(f"it is among the worst {100 * (review.share or 0):g} %")
    return (
        quality.model_copy(update={"review": quality.review or bool(told), "reasons": (*quality.reasons, *told)})
        if told
        else quality
    )


def worst_first(names: Sequence[str], judged: Sequence[Mapping[str, Quality]]) -> list[tuple[str, str, Quality]]:
    """Sort masks: those to be looked at first, then by what is predicted of them."""
    rows = [(name, structure, of) for name, image in zip(names, judged, strict=True) for structure, of in image.items()]
    return sorted(rows, key=lambda row: order_of(row[2]))


def order_of(quality: Quality) -> tuple[bool, float]:
    """Tell where a mask stands among others."""
    return not quality.review, _rank(quality)


def described(quality: Quality) -> dict[str, Any]:
    """Give the numbers of a row, as text."""

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.4f}"

    return {
        "predicted_dice": number(quality.predicted_dice),
        "dice_at_least": number(quality.dice_at_least),
        "score": number(quality.score),
        "flag": "review" if quality.review else "",
        "reasons": "; ".join(quality.reasons),
    }
