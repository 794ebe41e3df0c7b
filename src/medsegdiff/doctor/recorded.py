"""What a run has written down of its data: split, classes, channels, how images are normalised."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.data.dataset import SPLITS
from medsegdiff.data.modality import shown_modalities
from medsegdiff.doctor.finding import Finding
from medsegdiff.errors import DataError
from medsegdiff.training.run import Run


def record_of(folder: Path) -> dict[str, Any]:
    """Read what a run wrote down of how it was made."""
    file = folder / "run.json"
    if not file.is_file():
        return {}
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file}: can't be read ({error}). The file is damaged or not whole.") from error
    if not isinstance(record, dict):
        raise DataError(f"{file}: holds no record of a run. It was not written by medsegdiff.")
    return record


def examine_recorded(run: Run, config: ResolvedConfig, record: dict[str, Any]) -> list[Finding]:
    """Examine what ``segment`` and ``evaluate`` rely on."""
    return [
        _split(run, record.get("split_sha256")),
        _classes(config),
        _normalisation(config),
        _origin(record.get("data")),
    ]


def _split(run: Run, expected: object) -> Finding:
    if not run.split.is_file():
        advice = "'segment --split test' needs it; restore split.csv, or train anew."
        return Finding("data", "split", "to look at", f"There is no {run.split.name}.", advice)
    try:
        text = run.split.read_text(encoding="utf-8")
    except ValueError as error:
        raise DataError(f"{run.split}: is no text ({error}). The file is damaged.") from error
    counts = Counter(row.get("split", "") for row in csv.DictReader(text.splitlines()))
    found = ", ".join(f"{counts[part]} {part}" for part in SPLITS) + "."
    numbers = {part: counts[part] for part in SPLITS}
    if expected and hashlib.sha256(text.encode()).hexdigest() != expected:
        advice = "Test cases may have been trained on; restore the file."
        return Finding("data", "split", "wrong", f"{found} The file was changed after training.", advice, numbers)
    if missing := [part for part in SPLITS if not counts[part]]:
        advice = "Scores of such a part can't be trusted or can't be had."
        return Finding("data", "split", "to look at", f"{found} No case is in {', '.join(missing)}.", advice, numbers)
    return Finding("data", "split", "good", found, numbers=numbers)


def _classes(config: ResolvedConfig) -> Finding:
    labels, channels = config.spec.labels, config.spec.channels
    found = f"{labels.task}: {', '.join(labels.classes)}; {channels} image channels, {config.data.image_size} px."
    return Finding("data", "classes", "good", found)


def _normalisation(config: ResolvedConfig) -> Finding:
    spec = config.spec
    how = "mean 0 and standard deviation 1 by channel of each image or volume"
    told = shown_modalities(spec.modalities, spec.window)
    found = f"{told}." if set(spec.modalities) == {"ct"} else f"{told}: {how}, except CT."
    return Finding("data", "normalisation", "good", found)


def _origin(where: object) -> Finding:
    if not where:
        return Finding("data", "origin", "to look at", "Where the data were is not recorded.", "Give --data.")
    there = Path(str(where)).exists()
    found = f"Trained on {where}" + ("." if there or where == "phantom" else ", which can't be reached from here.")
    return Finding("data", "origin", "good", found)
