"""Scoring a folder of predicted masks against a folder of references."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.stats import bootstrap

from medsegdiff.config import DataConfig
from medsegdiff.data.dataset import Track, in_silence
from medsegdiff.data.masks import MaskCoding, MaskFolder
from medsegdiff.data.split import make_split
from medsegdiff.errors import DataError, GeometryError
from medsegdiff.io.atomic import write_json, write_text
from medsegdiff.io.raster import read_mask
from medsegdiff.metrics.base import METRICS

CONVENTIONS = {
    "case": "Each case is scored on its native grid; the summary is the mean over cases.",
    "ci95": "Bootstrap over cases: 2000 resamples, percentile interval, seed 0.",
    "reference": "Several raters: the majority of them, a tie is foreground.",
    "dice": "2|P∩R| / (|P|+|R|); no reference 0, no prediction 0, both empty 1.",
    "iou": "|P∩R| / |P∪R|; no reference 0, no prediction 0, both empty 1.",
    "hd95": "Larger of the two directed 95th percentiles of border distances, in pixels where the files tell no "
    "mm; no reference or no prediction: diagonal of the grid; both empty 0.",
}
"""How the numbers are defined; written with every result."""


@dataclass(frozen=True)
class Evaluation:
    """Scores by case, and over all cases."""

    cases: list[dict[str, Any]]
    """``name``, each metric (mean over structures), and ``metric/structure`` where there are several."""
    summary: dict[str, dict[str, Any]]
    """By metric: ``mean`` and ``ci95``."""
    empty: dict[str, int]
    """How many masks were empty: ``no_reference``, ``no_prediction``, ``both``."""

    def to_dict(self) -> dict[str, Any]:
        """Give the content of ``metrics.json``.

        Returns:
            Summary, cases, counts of empty masks and conventions.
        """
        return {"summary": self.summary, "cases": self.cases, "empty": self.empty, "conventions": CONVENTIONS}

    def save(self, out: Path) -> None:
        """Write ``metrics.json`` and ``metrics.csv``.

        Args:
            out: Folder.
        """
        write_json(out / "metrics.json", self.to_dict())
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(self.cases[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.cases)
        write_text(out / "metrics.csv", text.getvalue())


def evaluate(predictions: Path, references: Path, *, split: str | None = None, track: Track = in_silence) -> Evaluation:
    """Score predicted masks.

    Args:
        predictions: A folder of masks, or what ``medsegdiff segment`` wrote.
        references: A folder of masks, or a data folder with ``masks/``; sub-folders are raters or structures.
        split: Part of the references' ``split.csv`` that the predictions must cover; ``None``: all references.
        track: Shows progress.

    Returns:
        The scores.

    Raises:
        DataError: If a case is missing on either side.
    """
    reference = MaskFolder(references / "masks" if (references / "masks").is_dir() else references)
    names = _expected(reference, references, split)
    coding = reference.coding({v for n in track(names, "Reading references") for v in _values(reference, n)})
    prediction = _predictions(predictions, coding)
    _check_names(names, prediction, reference)
    cases = [_score(name, prediction, reference, coding) for name in track(names, "Scoring")]
    counts = {kind: sum(case.pop(f"_{kind}") for case in cases) for kind in ("no_reference", "no_prediction", "both")}
    return Evaluation(cases, summarise(cases), counts)


def _expected(reference: MaskFolder, folder: Path, split: str | None) -> list[str]:
    if split is None:
        return reference.names
    parts = make_split(reference.names, folder / "split.csv", DataConfig())
    names = sorted(name for name, part in parts.items() if split in (part, "all"))
    if not names:
        raise DataError(
            f"{folder}: the split '{split}' holds no case; there are {', '.join(sorted(set(parts.values())))}."
        )
    return names


def _predictions(folder: Path, coding: MaskCoding) -> MaskFolder:
    """Find the masks in what ``segment`` wrote; else take the folder as it is."""
    inner = folder / ("labels" if coding.task == "exclusive" else "masks")
    kind: Literal["structures", "raters"] = "structures" if coding.task == "regions" else "raters"
    found = MaskFolder(inner if inner.is_dir() else folder, kind=kind)
    if coding.task == "regions" and set(found.folders) != set(coding.classes):
        raise DataError(
            f"{found.root} holds {', '.join(f or 'masks' for f in found.folders)}; the references hold the structures "
            f"{', '.join(coding.classes)}. Expected one folder of predictions for each."
        )
    return found


def _check_names(names: Sequence[str], prediction: MaskFolder, reference: MaskFolder) -> None:
    missing = sorted(set(names) - set(prediction.names))
    strange = sorted(set(prediction.names) - set(reference.names))
    if missing:
        raise DataError(
            f"{len(missing)} of {len(names)} references have no prediction in {prediction.root}: "
            f"{', '.join(missing[:5])}{', …' if len(missing) > 5 else ''}. "
            "Segment them too, or name a part of split.csv with --split."
        )
    if strange:
        raise DataError(
            f"{len(strange)} predictions have no reference in {reference.root}: {', '.join(strange[:5])}"
            f"{', …' if len(strange) > 5 else ''}. Names must be equal but for endings such as _mask."
        )


def _values(folder: MaskFolder, name: str) -> set[int]:
    return {int(v) for path in folder.files(name) for v in np.unique(read_mask(path))}


def _score(name: str, prediction: MaskFolder, reference: MaskFolder, coding: MaskCoding) -> dict[str, Any]:
    raters = reference.read(name, coding)
    truth = raters.mean(axis=0) >= 0.5  # (k, h, w)
    predicted = prediction.read(name, coding)[0].astype(bool)
    if predicted.shape != truth.shape:
        raise GeometryError(
            f"'{name}': the prediction is {predicted.shape[1]}×{predicted.shape[2]}, the reference "
            f"{truth.shape[1]}×{truth.shape[2]}. Score masks on the grid of the reference."
        )
    first = int(coding.task == "exclusive")  # the background is not scored
    structures = coding.classes[first:]
    pairs = list(zip(predicted[first:], truth[first:], strict=True))
    row: dict[str, Any] = {"name": name}
    for metric in METRICS:
        values = [metric.factory(p, r, spacing=(1.0,) * p.ndim) for p, r in pairs]
        row[metric.name] = float(np.mean(values))
        if len(structures) > 1:
            row |= {f"{metric.name}/{s}": v for s, v in zip(structures, values, strict=True)}
    return row | _count_empty(pairs)


def _count_empty(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, int]:
    has = [(bool(p.any()), bool(r.any())) for p, r in pairs]
    return {
        "_no_reference": has.count((True, False)),
        "_no_prediction": has.count((False, True)),
        "_both": has.count((False, False)),
    }


def summarise(cases: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Average scores over cases, with 95 % bootstrap intervals.

    Args:
        cases: Rows with ``name`` and numbers.

    Returns:
        By number: ``mean`` and ``ci95`` (``None`` for a single case).
    """
    keys = [key for key in cases[0] if key != "name"]
    return {key: _mean_and_interval([float(case[key]) for case in cases]) for key in keys}


def _mean_and_interval(values: Sequence[float]) -> dict[str, Any]:
    mean = float(np.mean(values))
    if len(values) < 2:
        return {"mean": mean, "ci95": None}
    drawn = bootstrap((values,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(0))
    low, high = (float(bound) for bound in drawn.confidence_interval)
    return {"mean": mean, "ci95": None if math.isnan(low) else [low, high]}
