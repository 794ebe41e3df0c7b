"""What is said of masks without a reference, and which of them a human must see, the worst first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medsegdiff.config.base import Component


class Quality(Component):
    """What is known of a structure's mask without a reference."""

    score: float
    """The one that ranks best on calibration cases, in [0, 1]; the higher, the better the mask seems."""
    predicted_dice: float | None = None
    """``None`` where there were too few patients for numbers."""
    dice_at_least: float | None = None
    """It is below this in one of ten cases."""
    trust: float | None = None
    """How usual mask and image are, in [0, 1]: the share of calibration cases that would seem as doubtful, by score and
    looks together. Masks are sorted by it. ``None`` from earlier versions."""
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
    "trust",
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
    return quality.score if quality.trust is None else quality.trust


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
        "trust": "" if quality.trust is None else f"{quality.trust:.4g}",
        "flag": "review" if quality.review else "",
        "reasons": "; ".join(quality.reasons),
    }
