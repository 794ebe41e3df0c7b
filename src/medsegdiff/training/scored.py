"""What scores without a reference say of the Dice of a structure, learned from cases that have references."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.errors import DataError, some
from medsegdiff.inference.quality import Range, StructureQuality
from medsegdiff.inference.scores import SCORES
from medsegdiff.metrics.acceptance import best_score, choose
from medsegdiff.metrics.failures import aurc_of_cases, by_chance
from medsegdiff.metrics.predicted_dice import cross_fitted, fit_dice_map, fit_margin
from medsegdiff.metrics.tails import Tail
from medsegdiff.training.observed import FEWEST_CASES, Observed

log = logging.getLogger(__name__)

FEWEST = 30
"""Patients of whom fewer give an order of cases, and no numbers."""


@dataclass(frozen=True)
class Seen:
    """A structure over the calibration cases."""

    dice: Float[np.ndarray, " n"]
    """Of the mask with the reference."""
    predicted: Float[np.ndarray, " n"] | None
    """From the other patients; ``None`` where there are too few for numbers."""
    quality: StructureQuality


def learn_structures(found: Observed, config: ResolvedConfig, *, good: float, risk: float) -> dict[str, Seen]:
    """Learn structure by structure, of those that the references hold."""
    drawn, known = found.pairing.structures.names, config.spec.labels.structures
    parts = {own: "" if len(drawn) == 1 else name for name, own in found.called(config.spec.labels).items()}
    learned = {
        name: seen
        for name in known
        if name in parts and (seen := _of_structure(name, parts[name], found, good=good, risk=risk))
    }
    if not learned:
        raise DataError(
            f"The references hold {some(drawn)}, the run segments {some(known)}: of no structure there are "
            f"{FEWEST_CASES} references, of which quality could be learned. Take data with the run's structures."
        )
    if left := [name for name in known if name not in learned]:
        log.warning("Of %s there are too few references: of its masks nothing is said.", some(left))
    return learned


def _of_structure(structure: str, part: str, found: Observed, *, good: float, risk: float) -> Seen | None:
    """Choose a score that ranks well, and learn what it says; nothing of a structure that has too few references."""
    names, scores, stated = found.cases, found.evaluation.scores, found.pairing.stated
    dice = np.array([scores.value(name, "dice", part) for name in names])
    known = ~np.isnan(dice)
    if known.sum() < FEWEST_CASES:
        return None
    dice, kept = dice[known], [name for name, one in zip(names, known, strict=True) if one]
    groups = [scores.groups[name] for name in kept]
    patients = len({scores.cluster(name) for name in kept})
    told = [stated[name].scores[structure] for name in kept]
    values = {name: np.array([of[name] for of in told]) for name in SCORES if all(name in of for of in told)}
    areas = {name: aurc_of_cases(1 - value, 1 - dice) for name, value in values.items()}
    areas |= {"random": by_chance(1 - dice)["aurc"], "oracle": aurc_of_cases(1 - dice, 1 - dice)}
    enough = patients >= FEWEST
    best, promised = choose(values, dice, groups, good=good, risk=risk) if enough else (best_score(values, dice), None)
    score = values[best]
    predicted = cross_fitted(score, dice, groups) if enough else None
    shares = np.array([stated[name].foreground[structure] for name in kept])
    quality = StructureQuality(
        patients=patients,
        score=best,
        dice=fit_dice_map(score, dice, groups) if enough else None,
        margin=0.0 if predicted is None else fit_margin(predicted, dice, groups),
        acceptance=promised,
        usual=Range(low=float(np.quantile(score, 0.05)), high=float(np.quantile(score, 0.95))),
        doubts=Tail.of(1 - score),
        size=range_of(shares),
        border=any(structure in stated[name].incomplete for name in kept),
        aurc=areas,
    )
    return Seen(dice, predicted, quality)


def range_of(values: Float[np.ndarray, "*n"] | Int[np.ndarray, "*n"]) -> Range:
    """Go from the least to the most."""
    return Range(low=float(values.min()), high=float(values.max()))
