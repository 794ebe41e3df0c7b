"""Scoring all cases of a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from medsegdiff.config.run import DataConfig
from medsegdiff.data.dataset import Track, in_silence
from medsegdiff.evaluation.case import CaseScores, score_case
from medsegdiff.evaluation.matching import Kind, Pairing, grid_of, pair
from medsegdiff.evaluation.members import curve_of
from medsegdiff.evaluation.pool import Pool
from medsegdiff.evaluation.result import Evaluation, summarise
from medsegdiff.metrics.plausibility import doubts
from medsegdiff.metrics.selective import spearman
from medsegdiff.metrics.surface import TOLERANCE

MOST_AT_ONCE = 8
"""Pictures that are scored at the same time."""


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
    track: Track = in_silence,
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
        track: Shows progress.

    Returns:
        The scores.

    Raises:
        DataError: If a case is missing on either side, or masks can't be understood.
    """
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
    scored = _scores(pairing, tolerance, track)
    rows = [case.row for case in scored]
    empty = [kind for case in scored for kind in case.empty]
    return Evaluation(
        rows,
        summarise(rows),
        {kind: empty.count(kind) for kind in ("no_reference", "no_prediction", "both")},
        made=_made(pairing, predictions, references, tolerance),
        pools=_pooled(scored),
        correlation=_correlation(rows),
        doubts=tuple(filter(None, [doubts([case.seen for case in scored if "both" not in case.empty])])),
        curve=curve_of(pairing, track),
        pairing=pairing,
    )


def _scores(pairing: Pairing, tolerance: float, track: Track) -> list[CaseScores]:
    """Score the cases, several pictures at a time; of volumes one, for the sake of memory."""
    with ThreadPoolExecutor(1 if _volumes(pairing) else min(os.cpu_count() or 1, MOST_AT_ONCE)) as pool:
        pending = [pool.submit(score_case, name, pairing, tolerance=tolerance) for name in pairing.names]
        try:
            return [case.result() for case in track(pending, "Scoring")]
        finally:
            pool.shutdown(cancel_futures=True)


def _volumes(pairing: Pairing) -> bool:
    return bool(pairing.names) and len(grid_of(pairing.names[0], pairing.reference).shape) > 2


def _pooled(scored: Sequence[CaseScores]) -> dict[str, Pool]:
    """Pool the pixels of all cases, by structure."""
    pools: dict[str, Pool] = {}
    for case in scored:
        for name, pool in case.pools.items():
            pools[name] = pools[name] + pool if name in pools else pool
    return pools


def _made(pairing: Pairing, predictions: Path, references: Path, tolerance: float) -> dict[str, Any]:
    """Say what was scored."""
    given = pairing.predictions
    counts = [given.count(name) for name in pairing.names]
    raters = [len(pairing.reference.files(name)) for name in pairing.names]
    several = pairing.reference.kind == "raters"
    return {
        "predictions": str(predictions),
        "references": str(references),
        "structures": list(pairing.structures),
        "members": max(counts, default=0),
        "members_least": min(counts, default=0),
        "fused_by": given.fusion if given.masks is None and given.members else "",
        "raters": [min(raters), max(raters)] if several and raters else [1, 1],
        "groups": len(set(pairing.groups.values())),
        "tolerance": tolerance,
        "unit": "mm" if _volumes(pairing) else "px",
        "probability_is": given.probability_is,
    }


def _correlation(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Correlate, over cases, what the ensemble says of itself with its error."""
    error = np.array([1 - row["dice"] for row in rows])
    found = {}
    if all("agreement" in row for row in rows):
        found["1 - agreement"] = spearman(np.array([1 - row["agreement"] for row in rows]), error)
    return found
