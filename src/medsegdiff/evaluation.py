"""Scoring a folder of predicted masks against a folder of references."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from scipy.stats import bootstrap

from medsegdiff.config import DataConfig
from medsegdiff.data.coding import TWO_VALUES, MaskCoding
from medsegdiff.data.dataset import Track, in_silence
from medsegdiff.data.mask_folder import mask_folder
from medsegdiff.data.masks import Masks
from medsegdiff.data.opening import detect, list_cases, looks_like
from medsegdiff.data.split import names_in, resolve
from medsegdiff.errors import DataError, GeometryError, size, some
from medsegdiff.io.atomic import write_json, write_text
from medsegdiff.io.grid import check_same_grid
from medsegdiff.io.names import file_name
from medsegdiff.metrics.base import METRICS
from medsegdiff.types import Geometry

CONVENTIONS = {
    "case": "Each case is scored on its native grid; the summary is the mean over cases.",
    "ci95": "Bootstrap over cases: 2000 resamples, percentile interval, seed 0.",
    "reference": "Several raters: the majority of them, a tie is foreground.",
    **{entry.name: entry.facts.get("definition", "") for entry in METRICS},
}
"""How the numbers are defined; written with every result."""


EMPTY = {
    (True, False): "no_reference",
    (False, True): "no_prediction",
    (False, False): "both",
    (True, True): "none",
}
"""Whether prediction and reference hold anything → which is empty."""


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

    def shown(self, metric: str, *, digits: int = 4) -> str:
        """Write a mean with its interval.

        Args:
            metric: Its name.
            digits: After the point.

        Returns:
            ``0.9012 [0.8811, 0.9200]``.
        """
        numbers = self.summary[metric]
        interval = "" if numbers["ci95"] is None else " [{:.{d}f}, {:.{d}f}]".format(*numbers["ci95"], d=digits)
        return f"{numbers['mean']:.{digits}f}{interval}"

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


def evaluate(
    predictions: Path,
    references: Path,
    *,
    split: str | None = None,
    present_only: bool = False,
    data: DataConfig | None = None,
    track: Track = in_silence,
) -> Evaluation:
    """Score predicted masks.

    Args:
        predictions: A folder of masks, or what ``medsegdiff segment`` wrote.
        references: A folder of masks, or a data folder with ``masks/``; sub-folders are raters or structures.
        split: Part that the predictions must cover, by the ``split.csv`` beside the predictions or the references;
            ``None``: all references.
        present_only: Whether references without a prediction are left out instead of being an error.
        data: How to read the references: ``mask_folders``, ``task``, ``classes``.
        track: Shows progress.

    Returns:
        The scores.

    Raises:
        DataError: If a case is missing on either side, or masks can't be understood.
    """
    data = data or DataConfig()
    inner = references / data.mask_dir
    root = inner if inner.is_dir() else references
    listed = None if split is None else _listed(split, (_made_in(predictions), references, root.parent))
    data = data.model_copy(update={"layout": _layout(predictions, references, data)})
    reference, parts = _references(references, root, data, known=listed or ())
    asked = _names_of(split, parts, references) if split is not None and listed is None else listed
    asked = None if asked is None else [resolve(name, reference.names) for name in asked]
    coding = _coding(reference, predictions, data, track)
    prediction = _predictions(predictions, coding, names=reference.names, checked=data.task is None)
    names = reference.names if asked is None else asked
    if present_only:
        names = [name for name in names if name in prediction.names]
    _check_names(names, prediction, reference)
    scored = [_score(name, prediction, reference, coding) for name in track(names, "Scoring")]
    counts = {kind: sum(empty.count(kind) for _, empty in scored) for kind in ("no_reference", "no_prediction", "both")}
    cases = [case for case, _ in scored]
    return Evaluation(cases, summarise(cases), counts)


def _layout(predictions: Path, references: Path, data: DataConfig) -> str:
    """Read references as those were read that the model was trained on, where it is told and they look alike."""
    made = _made_in(predictions) / "segment.json"
    told = json.loads(made.read_text(encoding="utf-8")).get("layout") if made.is_file() else None
    return str(told) if data.layout == "auto" and told and looks_like(str(told), references) else data.layout


def _references(
    whole: Path, root: Path, data: DataConfig, *, known: Collection[str]
) -> tuple[Masks, Mapping[str, str]]:
    """Find reference masks: of a data set in any layout, with the part of each case, or of a folder of masks."""
    if data.layout != "auto" or detect(whole) is not None:
        listing = list_cases(whole, data)
        if listing.masks.names:
            return listing.masks, {name: case.part for name, case in listing.cases.items()}
    return mask_folder(root, kind=data.mask_folders, names=known), {}


def _listed(split: str, places: Sequence[Path]) -> list[str] | None:
    """List the cases of a part by the first ``split.csv`` that there is."""
    file = next((folder / "split.csv" for folder in places if (folder / "split.csv").is_file()), None)
    return None if file is None else sorted(names_in(file, split))


def _names_of(split: str, parts: Mapping[str, str], references: Path) -> list[str]:
    """List the cases of a part as the data set itself says."""
    found = sorted(name for name, part in parts.items() if split in (part, "all"))
    if not found:
        raise DataError(
            f"There is no split.csv beside the predictions or in {references}, so '{split}' is not known. "
            f"'medsegdiff segment --split {split}' puts the run's split beside its masks."
        )
    return found


def _coding(reference: Masks, predictions: Path, data: DataConfig, track: Track) -> MaskCoding:
    """Say what the values of references and predictions mean: from all of them, not from the cases scored alone."""
    values = {value for name in track(reference.names, "Reading references") for value in reference.values(name)}
    task, classes = data.task, data.classes
    made = _made_in(predictions) / "segment.json"
    if made.is_file() and reference.kind != "structures" and task is None:
        told = json.loads(made.read_text(encoding="utf-8"))
        if told["task"] in ("binary", "exclusive"):
            task, classes = told["task"], classes or tuple(told["classes"])
    elif task is None and reference.kind != "structures" and values not in TWO_VALUES:
        values |= _values_of(mask_folder(_inner(predictions, "labels", "masks")))
    return reference.coding(values, task=task, classes=classes)


def _made_in(folder: Path) -> Path:
    """Find the folder that ``segment`` wrote, of which this may be a part: ``anchor``, ``members/00``."""
    upwards = (folder, *folder.resolve().parents[:2])
    return next((place for place in upwards if (place / "segment.json").is_file()), folder)


def _inner(folder: Path, *parts: str) -> Path:
    """Find the masks in what ``segment`` wrote; any other folder is taken as it is."""
    return next((folder / part for part in parts if (folder / part).is_dir()), folder)


def _values_of(folder: Masks) -> set[int]:
    return {value for name in folder.names for value in folder.values(name)}


def _predictions(folder: Path, coding: MaskCoding, *, names: Collection[str], checked: bool) -> Masks:
    """Look through the predictions: one mask per case and structure."""
    parts = ("labels", "masks") if coding.task == "exclusive" else ("masks",)
    found = mask_folder(_inner(folder, *parts), kind="structures", names=names)
    single = len(coding.classes) == 1 and found.kind == "flat"
    if coding.task == "regions" and coding.values and found.folders == ("",) and not single:  # labels of regions
        return Masks({"": {name: found.files(name)[0] for name in found.names}}, kind="flat", where=found.root)
    if coding.task == "regions" and not single and set(found.folders) != set(map(file_name, coding.classes)):
        raise DataError(
            f"{found.root} holds {some([f or 'masks' for f in found.folders])}; the references hold the structures "
            f"{some(coding.classes)}. Expected one folder of predictions for each."
        )
    if coding.task != "regions" and found.kind != "flat":
        raise DataError(f"{found.root} holds several folders: {some(found.folders)}. Score one of them at a time.")
    if checked and coding.task != "exclusive" and (values := _values_of(found)) not in TWO_VALUES:
        shown = some([str(value) for value in sorted(values)])
        raise DataError(
            f"{found.root}: predicted values are {shown}; masks hold 0/1 or 0/255. Threshold probabilities first; "
            f"if every value above 0 is foreground, set data.task={coding.task}."
        )
    return (
        found.ordered([file_name(name) for name in coding.classes])
        if coding.task == "regions" and not single
        else found
    )


def _check_names(names: Sequence[str], prediction: Masks, reference: Masks) -> None:
    if missing := sorted(set(names) - set(prediction.names)):
        raise DataError(
            f"{len(missing)} of {len(names)} references have no prediction in {prediction.root}: {some(missing)}. "
            "Segment them too, or name a part of split.csv with --split."
        )
    if missing := sorted(set(names) - set(reference.names)):
        raise DataError(f"{len(missing)} of {len(names)} cases have no reference in {reference.root}: {some(missing)}.")
    for folder in (prediction, reference):
        if incomplete := folder.incomplete(names):
            raise DataError(f"{folder.root}: structures are missing: {some(incomplete)}. Save an empty mask for each.")
    if strange := sorted(set(prediction.names) - set(reference.names)):
        raise DataError(
            f"{len(strange)} predictions have no reference in {reference.root}: {some(strange)}. "
            "Names must be equal but for endings such as _mask."
        )


def _score(name: str, prediction: Masks, reference: Masks, coding: MaskCoding) -> tuple[dict[str, Any], list[str]]:
    """Score a case: the numbers, and which of its structures are empty."""
    geometry = _common_grid(name, reference, prediction)
    pairs = _pairs(name, prediction, reference, coding)
    structures = coding.classes[int(coding.task == "exclusive") :]  # the background is not scored
    empty, values = [], []
    for p, r in pairs:  # one by one: of a volume with many classes, all would not fit into memory
        values.append({metric.name: metric.factory(p, r, spacing=geometry.spacing) for metric in METRICS})
        empty.append(EMPTY[bool(p.any()), bool(r.any())])
    row: dict[str, Any] = {"name": name}
    for metric in METRICS:
        row[metric.name] = float(np.mean([of[metric.name] for of in values]))
        if len(structures) > 1:
            row |= {f"{metric.name}/{s}": of[metric.name] for s, of in zip(structures, values, strict=True)}
    return row, empty


def _pairs(
    name: str, prediction: Masks, reference: Masks, coding: MaskCoding
) -> Iterator[tuple[Bool[np.ndarray, "*s"], Bool[np.ndarray, "*s"]]]:
    """Give prediction and reference of each structure: the majority of raters, a tie is foreground."""
    drawn, predicted = reference.stored(name), prediction.stored(name)
    ignored, written = reference.ignored(drawn, coding), _written(coding, prediction, name)
    for index in range(int(coding.task == "exclusive"), len(coding.classes)):
        raters = reference.channel(drawn, coding, index)
        truth = 2 * raters.sum(axis=0, dtype=np.uint16) >= len(raters)
        seen = prediction.channel(predicted, written, index)[0].astype(bool)
        yield (seen, truth) if ignored is None else (seen & ~ignored.any(axis=0), truth & ~ignored.any(axis=0))


def _common_grid(name: str, *masks: Masks) -> Geometry:
    """Make sure that all masks of a case lie on one grid."""
    (file, geometry), *others = [(path, of.reader.geometry(path)) for of in masks for path in of.files(name)]
    for path, other in others:
        if other.shape != geometry.shape:
            raise GeometryError(
                f"'{name}': the prediction is {size(other.shape)}, the reference {size(geometry.shape)}. "
                f"Score masks on the grid of the reference ({file}, {path})."
            )
        check_same_grid(geometry, other, names=(str(file), str(path)))
    return geometry


def _written(coding: MaskCoding, prediction: Masks, name: str) -> MaskCoding:
    """Say what the values of predictions mean: 0 and 1, class indices, or the labels of the data set."""
    one_each = prediction.kind == "structures" or coding.task == "binary"
    plain = len(coding.classes) == 1 and prediction.values(name) in TWO_VALUES
    return MaskCoding(coding.task, coding.classes) if one_each or plain else coding


def summarise(cases: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Average scores over cases, with 95 % bootstrap intervals.

    Args:
        cases: Rows with ``name`` and numbers.

    Returns:
        By number: ``mean`` and ``ci95`` (``None`` for a single case).
    """
    keys = [key for key in cases[0] if key != "name"]
    columns = {key: [float(case[key]) for case in cases] for key in keys}
    return {key: {"mean": float(np.mean(column)), "ci95": interval(column)} for key, column in columns.items()}


def interval(values: Sequence[float]) -> list[float] | None:
    """Estimate the 95 % interval of a mean by the bootstrap: 2000 resamples, percentiles, seed 0.

    Args:
        values: One per case.

    Returns:
        Low and high; ``None`` for fewer than two values.
    """
    if len(values) < 2:
        return None
    rng = np.random.default_rng(0)
    drawn = bootstrap((values,), np.mean, n_resamples=2000, method="percentile", rng=rng)
    return [float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)]
