"""Scoring all cases of a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from medsegdiff.config.data import DataConfig
from medsegdiff.data.dataset import Track, no_progress
from medsegdiff.evaluation.case import CaseScores, score_case, structures_of
from medsegdiff.evaluation.consensus import Consensus, check_consensus, in_words
from medsegdiff.evaluation.conventions import CONVENTIONS, FAILURE, of_setup
from medsegdiff.evaluation.lesions import rule_told, settled
from medsegdiff.evaluation.pairing import Kind, Pairing, grid_of, pair
from medsegdiff.evaluation.pool import Pool, added_up
from medsegdiff.evaluation.results import Results, Setup
from medsegdiff.evaluation.scores import Scores
from medsegdiff.evaluation.stated import Predicted, failures, predictions_of, stated_of
from medsegdiff.fusion.curve import Curve, ensemble_curve
from medsegdiff.metrics.base import METRICS, definition
from medsegdiff.metrics.lesions import LesionRule, Lesions
from medsegdiff.metrics.plausibility import warning_of
from medsegdiff.metrics.selective import spearman
from medsegdiff.metrics.surface import TOLERANCE

MOST_AT_ONCE = 8
"""Pictures that are scored at the same time."""
CURVE_CASES, CURVE_REPEATS = 100, 5
"""Cases of the curve over members, evenly spread over all of them, and subsets of each size: it needs no more."""


@dataclass(frozen=True)
class Evaluation(Results):
    """Scores by case and over all cases, and what is known beside them."""

    empty: Mapping[str, int] = field(default_factory=dict)
    """How many masks were empty: ``no_reference``, ``no_prediction``, ``both``."""
    pools: Mapping[str, Pool] = field(default_factory=dict)
    """By structure: sums over the pixels of all cases; without probabilities there are none."""
    lesions: Mapping[str, Lesions] = field(default_factory=dict)
    """By structure: lesions of all cases, where they were counted."""
    correlation: Mapping[str, float] = field(default_factory=dict)
    """Over cases, rank correlation of predicted disagreement with 1 − Dice."""
    failure: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """What is known of a case without its reference → how well it tells, over cases, where Dice is low."""
    predicted: Mapping[str, Predicted] = field(default_factory=dict)
    """By structure: the Dice that was predicted of each case, where the run was calibrated, and the true one."""
    warnings: tuple[str, ...] = ()
    """What looks wrong with the masks."""
    curve: Curve | None = None
    """Dice against the number of members, of saved ones."""
    pairing: Pairing | None = field(default=None, repr=False, compare=False)
    """The files, from which pictures of cases can be drawn."""

    @property
    def conventions(self) -> dict[str, str]:
        """How the numbers of this evaluation are defined."""
        others = dict.fromkeys(measure.metric for measure in self.summary if measure.metric not in METRICS)
        defined = {metric: definition(metric) for metric in (*(entry.name for entry in METRICS), *others)}
        reference = {"reference": self.reference_is} if self.reference_is else {}
        return {**CONVENTIONS, **reference, **defined, **of_setup(self.setup), **(FAILURE if self.failure else {})}

    @property
    def reference_is(self) -> str:
        """What several raters were taken for, in words; empty where there is one."""
        return in_words(self.setup.reference, self.setup.raters or (1, 1))

    @property
    def pooled(self) -> Pool | None:
        """Sums over all pixels of all structures."""
        pools = list(self.pools.values())
        return sum(pools[1:], pools[0]) if pools else None

    @property
    def all_lesions(self) -> dict[str, Lesions]:
        """Lesions of all cases by structure, and before them those of ``all`` structures."""
        counted = list(self.lesions.values())
        if not counted:
            return {}
        return {"all": sum(counted[1:], counted[0]), **(self.lesions if len(counted) > 1 else {})}

    def to_dict(self) -> dict[str, Any]:
        """Give the content of ``metrics.json``."""
        pools = {"all": self.pooled, **self.pools} if len(self.pools) > 1 else {"all": self.pooled}
        return {
            **super().to_dict(),
            "empty": self.empty,
            "pooled": {name: pool.to_dict() for name, pool in pools.items() if pool is not None},
            "lesions": {name: counted.to_dict() for name, counted in self.all_lesions.items()},
            "correlation": self.correlation,
            "failure": self.failure,
            "predicted": {name: of.to_dict() for name, of in self.predicted.items()},
            "ensemble_curve": None if self.curve is None else self.curve.to_dict(),
            "doubts": self.warnings,
            "conventions": self.conventions,
        }


def evaluate(
    predictions: Path,
    references: Path,
    *,
    split: str | None = None,
    present_only: bool = False,
    data: DataConfig | None = None,
    kind: Kind = "auto",
    fusion: str = "staple",
    tolerance: float = TOLERANCE,
    reference: Consensus = "majority",
    lesions: LesionRule | None = None,
    track: Track = no_progress,
) -> Evaluation:
    """Score predicted masks, with members and probabilities where they are saved.

    Args:
        predictions: A folder of masks (PNG, NIfTI, DICOM-SEG), of probabilities, of a folder per member, or what
            ``medsegdiff segment`` wrote.
        references: A folder of masks, or a data folder with ``masks/``; sub-folders are raters or structures.
        split: Part that the predictions must cover, by the ``split.csv`` beside the predictions or the references;
            ``None``: all references.
        present_only: Whether references without a prediction are left out instead of being an error.
        data: How to read the references: ``mask_folders``, ``task``, ``classes``.
        kind: What the predictions are; ``auto``: folders named ``members`` and ``probability`` say so, others are of
            masks.
        fusion: How members are fused where there is no fused mask beside them.
        tolerance: Of NSD, in mm, or pixels for pictures.
        reference: What several raters are taken for: their ``majority`` (a tie is foreground: of two raters it is
            their union), ``union``, ``intersection``, or ``each``: metrics against a reference are computed with
            each and averaged. Metrics of raters and the share of them, which calibration is against, stay as they are.
        lesions: How lesions are counted, for scores lesion by lesion; ``None``: they are not.
        track: Shows progress.

    Returns:
        The scores.

    Raises:
        ConfigError: If there is no such ``reference``, or the rule for ``lesions`` does not fit.
        DataError: If a case is missing on either side, or masks can't be understood.
    """
    check_consensus(reference)
    pairing = pair(
        predictions,
        references,
        split=split,
        present_only=present_only,
        data=data or DataConfig(),
        kind=kind,
        fusion=fusion,
        track=track,
    )
    pairing = replace(pairing, consensus=reference, stated=stated_of(predictions, pairing.names))
    if lesions is not None:
        pairing = replace(pairing, lesions=settled(lesions, pairing, ndim=3 if _volumes(pairing) else 2))
    scored = _scored(pairing, tolerance, track)
    scores = Scores.of_cases((case.name, case.group, case.numbers) for case in scored)
    empty = [kind for case in scored for kind in case.empty]
    return Evaluation(
        scores,
        scores.means(),
        _setup(pairing, predictions, references, tolerance),
        empty={kind: empty.count(kind) for kind in ("no_reference", "no_prediction", "both")},
        pools=added_up([case.pools for case in scored]),
        lesions=added_up([case.lesions for case in scored]),
        correlation=_correlation(scores),
        failure=failures(scores, pairing.stated),
        predicted=predictions_of(scores, pairing.stated, pairing.structures.names),
        warnings=_doubts(scored, pairing),
        curve=_curve(pairing, track),
        pairing=pairing,
    )


def _scored(pairing: Pairing, tolerance: float, track: Track) -> list[CaseScores]:
    """Score the cases, several pictures at a time; of volumes one, for the sake of memory."""
    with ThreadPoolExecutor(1 if _volumes(pairing) else min(os.cpu_count() or 1, MOST_AT_ONCE)) as pool:
        pending = [pool.submit(score_case, name, pairing, tolerance=tolerance) for name in pairing.names]
        try:
            return [case.result() for case in track(pending, "Scoring")]
        finally:
            pool.shutdown(cancel_futures=True)


def _volumes(pairing: Pairing) -> bool:
    return bool(pairing.names) and len(grid_of(pairing.names[0], pairing.reference).shape) > 2


def _doubts(scored: Sequence[CaseScores], pairing: Pairing) -> tuple[str, ...]:
    """Say what looks wrong with the masks, and which structures make scores better than they are."""
    masks = warning_of([case.seen for case in scored if "both" not in case.empty])
    held = frozenset[str]().union(*(case.held for case in scored))
    return tuple(filter(None, [masks, *pairing.structures.doubts(held)]))


def _setup(pairing: Pairing, predictions: Path, references: Path, tolerance: float) -> Setup:
    """Say what was scored."""
    given = pairing.predictions
    counts = [given.count(name) for name in pairing.names]
    raters = [len(pairing.reference.files(name)) for name in pairing.names]
    several = pairing.reference.kind == "raters"
    return Setup(
        predictions=str(predictions),
        references=str(references),
        structures=pairing.structures.names,
        members=max(counts, default=0),
        members_least=min(counts, default=0),
        chosen_of=max((image.chosen_of or 0 for image in pairing.stated.values()), default=0) or None,
        fused_by=given.fused_by,
        raters=(min(raters), max(raters)) if several and raters else (1, 1),
        groups=len(set(pairing.groups.values())),
        tolerance=tolerance,
        unit="mm" if _volumes(pairing) else "px",
        probability_is=given.probability_is,
        reference=pairing.consensus,
        lesions=rule_told(pairing),
    )


def _correlation(scores: Scores) -> dict[str, float]:
    """Correlate, over cases, what the ensemble says of itself with its error."""
    agreement, dice = (np.array(scores.column(metric)) for metric in ("agreement", "dice"))
    agreement, dice = agreement[~np.isnan(dice)], dice[~np.isnan(dice)]
    return {} if np.isnan(agreement).any() else {"1 - agreement": spearman(1 - agreement, 1 - dice)}


def _curve(pairing: Pairing, track: Track) -> Curve | None:
    """Score subsets of the saved members, fused by majority, each structure and each reference by itself.

    ``medsegdiff paper figure3`` does it with the model's own fusion and more draws.
    """
    least = min((pairing.predictions.count(name) for name in pairing.names), default=0)
    if least < 3:
        return None
    step, counted = -(-len(pairing.names) // CURVE_CASES), list[str]()

    def cases() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for name in track(pairing.names[::step], "Members"):
            found = [structure for structure in structures_of(name, pairing) if structure.labelled]
            if not found:
                continue
            counted.append(name)
            members = [structure.members for structure in found if structure.members is not None]
            for truth in np.stack([structure.references() for structure in found], axis=1):
                yield np.stack(members, axis=1)[:least], truth

    curve = ensemble_curve(cases(), fusion="majority", repeats=CURVE_REPEATS)
    return replace(curve, num_cases=len(counted))
