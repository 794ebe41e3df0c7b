"""Scoring all cases of a folder, or one of several parts of them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from medsegdiff.config.data import DataConfig
from medsegdiff.data.dataset import Track, no_progress
from medsegdiff.errors import DataError, some
from medsegdiff.evaluation.asked import Asked
from medsegdiff.evaluation.case import CaseScores, score_case, structures_of
from medsegdiff.evaluation.consensus import Consensus
from medsegdiff.evaluation.evaluation import Evaluation
from medsegdiff.evaluation.lesions import rule_told
from medsegdiff.evaluation.pairing import Kind, Pairing
from medsegdiff.evaluation.parts import missing_parts, question_of, read_parts, write_part
from medsegdiff.evaluation.pool import Pool, added_up
from medsegdiff.evaluation.results import Setup
from medsegdiff.evaluation.scores import Scores
from medsegdiff.evaluation.stated import failures, predictions_of
from medsegdiff.fusion.curve import Curve, ensemble_curve
from medsegdiff.inference.team import Part
from medsegdiff.metrics.lesions import LesionRule, Lesions
from medsegdiff.metrics.plausibility import warning_of
from medsegdiff.metrics.selective import spearman
from medsegdiff.metrics.surface import TOLERANCE

MOST_AT_ONCE = 8
"""Pictures that are scored at the same time."""
CURVE_CASES, CURVE_REPEATS = 100, 5
"""Cases of the curve over members, evenly spread over all of them, and subsets of each size: it needs no more."""


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
    asked = Asked(
        predictions,
        references,
        split=split,
        present_only=present_only,
        data=data or DataConfig(),
        kind=kind,
        fusion=fusion,
        tolerance=tolerance,
        reference=reference,
        lesions=lesions,
    )
    return score(asked, track=track)


def score(asked: Asked, *, track: Track = no_progress) -> Evaluation:
    """Score what is asked.

    Args:
        asked: What is compared, and how.
        track: Shows progress.

    Returns:
        The scores.
    """
    pairing = asked.paired(track)
    return _summed(asked, pairing, _scored(pairing, pairing.names, asked.tolerance, track), track)


def evaluate_part(asked: Asked, out: Path, part: Part, *, track: Track = no_progress) -> list[str]:
    """Score one of several parts, and write what was scored of its cases.

    Args:
        asked: What is compared, and how.
        out: Folder of the scores, the same for all parts.
        part: Which.
        track: Shows progress.

    Returns:
        The parts that are not there yet, or were asked something else, or scored of files that have changed since.
    """
    pairing = asked.paired(track)
    names = [name for name in pairing.names if part.holds(name)]
    write_part(out, part, asked, pairing, _scored(pairing, names, asked.tolerance, track))
    return missing_parts(out, asked, pairing)


def evaluate_parts(out: Path, *, track: Track = no_progress) -> Evaluation:
    """Put the parts of an evaluation together: the same bits as if one process had scored all.

    Args:
        out: Folder of the scores.
        track: Shows progress.

    Returns:
        The scores.

    Raises:
        DataError: If a part is missing, or was asked something else, or files have come, gone or changed since.
    """
    asked = question_of(out)
    pairing = asked.paired(track)
    if left := missing_parts(out, asked, pairing):
        raise DataError(f"{out}: {some(left)} of the scores are not there yet, or older. Evaluate them too (--part).")
    return _summed(asked, pairing, read_parts(out, pairing.names), track)


def _summed(asked: Asked, pairing: Pairing, cases: Iterable[CaseScores], track: Track) -> Evaluation:
    """Sum up what was scored, case by case: what is large is not kept."""
    pools, lesions, scored = dict[str, Pool](), dict[str, Lesions](), list[CaseScores]()
    for case in cases:
        pools, lesions = added_up([pools, case.pools]), added_up([lesions, case.lesions])
        scored.append(replace(case, pools={}, lesions={}))
    scores = Scores.of_cases((case.name, case.group, case.numbers) for case in scored)
    empty = [kind for case in scored for kind in case.empty]
    return Evaluation(
        scores,
        scores.means(),
        _setup(pairing, asked),
        empty={kind: empty.count(kind) for kind in ("no_reference", "no_prediction", "both")},
        pools=pools,
        lesions=lesions,
        correlation=_correlation(scores),
        failure=failures(scores, pairing.stated),
        predicted=predictions_of(scores, pairing.stated, pairing.structures.names),
        warnings=_doubts(scored, pairing),
        curve=_curve(pairing, track),
        pairing=pairing,
    )


def _scored(pairing: Pairing, names: Sequence[str], tolerance: float, track: Track) -> Iterator[CaseScores]:
    """Score cases, several pictures at a time; of volumes one, for the sake of memory."""
    with ThreadPoolExecutor(1 if pairing.volumes else min(os.cpu_count() or 1, MOST_AT_ONCE)) as pool:
        pending = deque(pool.submit(score_case, name, pairing, tolerance=tolerance) for name in names)
        try:
            for _ in track(names, "Scoring"):
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _doubts(scored: Sequence[CaseScores], pairing: Pairing) -> tuple[str, ...]:
    """Say what looks wrong with the masks, and which structures make scores better than they are."""
    masks = warning_of([case.seen for case in scored if "both" not in case.empty])
    held = frozenset[str]().union(*(case.held for case in scored))
    return tuple(filter(None, [masks, *pairing.structures.doubts(held)]))


def _setup(pairing: Pairing, asked: Asked) -> Setup:
    """Say what was scored."""
    given = pairing.predictions
    counts = [given.count(name) for name in pairing.names]
    raters = [len(pairing.reference.files(name)) for name in pairing.names]
    several = pairing.reference.kind == "raters"
    return Setup(
        predictions=str(asked.predictions),
        references=str(asked.references),
        structures=pairing.structures.names,
        members=max(counts, default=0),
        members_least=min(counts, default=0),
        chosen_of=max((image.chosen_of or 0 for image in pairing.stated.values()), default=0) or None,
        fused_by=given.fused_by,
        raters=(min(raters), max(raters)) if several and raters else (1, 1),
        groups=len(set(pairing.groups.values())),
        tolerance=asked.tolerance,
        unit="mm" if pairing.volumes else "px",
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
