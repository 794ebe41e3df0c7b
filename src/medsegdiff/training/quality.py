"""Learning when a human must look: a run segments cases with references, and sees what its scores say of its Dice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from jaxtyping import Float

from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.data.dataset import CaseFiles, Track, no_progress
from medsegdiff.errors import ConfigError, DataError
from medsegdiff.evaluation import Evaluation, evaluate
from medsegdiff.evaluation.scores import Scores
from medsegdiff.inference.files import segment_files
from medsegdiff.inference.inputs import find_inputs, read_case
from medsegdiff.inference.quality import QualityModel, Range, StructureQuality
from medsegdiff.inference.record import ImageRecord
from medsegdiff.inference.request import Request
from medsegdiff.inference.scores import SCORES
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.metrics.acceptance import CONFIDENCE, accept, cross_fitted, fit_dice_map, fit_margin, least_patients
from medsegdiff.metrics.failures import aurc_of_cases, by_chance
from medsegdiff.metrics.likeness import features_of, fit_likeness

FEWEST = 30
"""Patients of whom fewer give an order of cases, and no numbers."""
FEWEST_CASES = 5
"""Of which fewer give not even that."""
IMAGES = 500
"""Of the calibration cases, evenly spread, whose looks are learned."""


@dataclass(frozen=True)
class Seen:
    """A structure over the calibration cases."""

    dice: Float[np.ndarray, " n"]
    """Of the mask with the reference."""
    predicted: Float[np.ndarray, " n"] | None
    """From the other patients; ``None`` where there are too few for numbers."""
    quality: StructureQuality


@dataclass(frozen=True)
class Trust:
    """What calibration has found."""

    model: QualityModel
    seen: Mapping[str, Seen]
    """By structure."""
    evaluation: Evaluation

    @property
    def ranks_only(self) -> bool:
        """Whether there were too few patients for numbers."""
        return self.model.patients < FEWEST


def calibrate_quality(
    run: Path,
    data: Path,
    *,
    split: str = "val",
    good: float = 0.8,
    risk: float = 0.05,
    out: Path | None = None,
    device: str | None = None,
    track: Track = no_progress,
) -> Trust:
    """Segment cases with references as a run's users will, and learn what its scores say of their Dice.

    The weights were chosen by the Dice of validation cases, so that these are a little better than new ones; cases that
    training never saw (another ``split``, or ``all`` of other data) tell more.

    Args:
        run: Folder of the run; ``quality.json`` is written into it.
        data: Images and references, in any layout that training reads.
        split: Part of the run's split, or ``all`` cases of the data.
        good: Dice from which a mask is good.
        risk: Share of accepted patients with a bad mask that may be promised.
        out: Folder in which the segmentations stay; ``None``: they go.
        device: Where to compute; ``None`` takes the best there is.
        track: Shows progress.

    Returns:
        What was learned.

    Raises:
        ConfigError: If ``good`` or ``risk`` is no share.
        DataError: If there are too few cases with a reference.
    """
    if not 0 < risk < 1 or not 0 < good <= 1:
        raise ConfigError(f"good is {good:g} and risk {risk:g}; both are shares, above 0 and at most 1.")
    segmenter = Segmenter.from_pretrained(run, device=device)
    split_file = None if split == "all" else run / "split.csv"
    files = find_inputs([data], like=segmenter.config, split_file=split_file, split=None if split == "all" else split)
    with TemporaryDirectory() as temporary:
        place = out or Path(temporary)
        parts = ("masks", "labels")
        finished = segment_files(segmenter, files, place, parts=parts, split_file=split_file, track=track)
        evaluation = evaluate(
            place,
            data,
            split=None if split == "all" else split,
            present_only=split == "all" or bool(finished.failed),
            data=segmenter.config.data,
            track=track,
        )
    trust = _learned(evaluation, files, segmenter.config, good=good, risk=risk)
    trust.model.save(run)
    return trust


def _learned(
    evaluation: Evaluation,
    files: Sequence[CaseFiles],
    config: ResolvedConfig,
    *,
    good: float,
    risk: float,
) -> Trust:
    """Learn structure by structure; cases are those that have a reference."""
    assert evaluation.pairing is not None
    scores, stated = evaluation.scores, evaluation.pairing.stated
    groups = {name: group for name, group in scores.groups.items() if name in stated}
    names = [name for name in groups if not math.isnan(scores.value(name, "dice"))]
    if len(names) < FEWEST_CASES:
        raise DataError(f"{len(names)} cases have a reference; quality is learned from {FEWEST_CASES} at least.")
    patients = len({groups[name] or f"\0{name}" for name in names})
    seen = {
        structure: found
        for structure in config.spec.labels.structures
        if (found := _of_structure(structure, names, scores, stated, config, good=good, risk=risk, patients=patients))
    }
    by_name = {file.name: file for file in files}
    looks = [read_case(by_name[stated[name].name]) for name in names[:: max(1, len(names) // IMAGES)]]
    spacing = np.array([case.geometry.spacing for case in looks]) if looks[0].geometry.affine is not None else None
    model = QualityModel(
        cases=len(names),
        patients=patients,
        good=good,
        risk=risk,
        confidence=CONFIDENCE,
        structures={name: of.quality for name, of in seen.items()},
        spacing=() if spacing is None else tuple(_range(of) for of in spacing.T),
        likeness=fit_likeness([features_of(case.image) for case in looks]),
        volumes=looks[0].image.ndim == 4,
        sampling=Request.of(config).sampling,
    )
    return Trust(model, seen, evaluation)


def _of_structure(
    structure: str,
    names: Sequence[str],
    scores: Scores,
    stated: Mapping[str, ImageRecord],
    config: ResolvedConfig,
    *,
    good: float,
    risk: float,
    patients: int,
) -> Seen | None:
    """Choose the score that ranks best, and learn what it says; nothing of a structure that has no Dice."""
    alone = len(config.spec.labels.structures) == 1
    dice = np.array([scores.value(name, "dice", "" if alone else structure) for name in names])
    known = ~np.isnan(dice)
    if known.sum() < FEWEST_CASES:
        return None
    dice, kept = dice[known], [name for name, one in zip(names, known, strict=True) if one]
    groups = [scores.groups[name] for name in kept]
    told = [stated[name].scores[structure] for name in kept]
    values = {name: np.array([of[name] for of in told]) for name in SCORES if all(name in of for of in told)}
    areas = {name: aurc_of_cases(1 - value, 1 - dice) for name, value in values.items()}
    best = min(areas, key=lambda name: areas[name])
    areas |= {"random": by_chance(1 - dice)["aurc"], "oracle": aurc_of_cases(1 - dice, 1 - dice)}
    score, enough = values[best], patients >= FEWEST
    predicted = cross_fitted(score, dice, groups) if enough else None
    shares = np.array([stated[name].foreground[structure] for name in kept])
    quality = StructureQuality(
        score=best,
        dice=fit_dice_map(score, dice, groups) if enough else None,
        margin=0.0 if predicted is None else fit_margin(predicted, dice, groups),
        acceptance=accept(score, dice < good, groups, risk=risk) if enough else None,
        usual=Range(low=float(np.quantile(score, 0.05)), high=float(np.quantile(score, 0.95))),
        size=_range(shares),
        border=any(structure in stated[name].incomplete for name in kept),
        aurc=areas,
    )
    return Seen(dice, predicted, quality)


def _range(values: Float[np.ndarray, " n"]) -> Range:
    return Range(low=float(values.min()), high=float(values.max()))


def promise(model: QualityModel, structure: StructureQuality) -> str:
    """Say in a sentence what may be promised of accepted masks, or why nothing is."""
    least = least_patients(model.risk, confidence=model.confidence)
    if model.patients < FEWEST:
        return f"{model.patients} patients: cases are ranked, and nothing is predicted; numbers take {FEWEST}."
    if structure.acceptance is None:
        return (
            f"Nothing is promised of accepted masks: that at most {100 * model.risk:g} % of patients have one with a "
            f"Dice below {model.good:g} takes {least} accepted patients of whom none has, or more of whom few have."
        )
    found = structure.acceptance
    return (
        f"With {100 * model.confidence:g} % confidence, of patients like these whose mask is accepted (a score from "
        f"{found.threshold:.3f} on: {100 * found.share:.0f} % of the cases) at most {100 * model.risk:g} % have one "
        f"with a Dice below {model.good:g}: {found.failed} of {found.patients} had."
    )
