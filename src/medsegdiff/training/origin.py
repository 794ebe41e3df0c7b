"""Where weights come from: what is written down of the models that they began with, one behind the other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medsegdiff.errors import DataError
from medsegdiff.models.checkpoint import CONFIG
from medsegdiff.models.packed import packed_facts

RECORD = "run.json"
ORIGIN = ("imported", "sha256", "made_anew", "pretrained", "started_from")
"""What is written down of where weights come from: the file that was imported, those begun with, or another run."""
UNTOLD = (
    "does not tell all that it was trained on: it was imported, exported or packed without split.csv, or it began with "
    "such a model"
)
"""Of a model, see `medsegdiff.training.run.Run.tells_trained`."""


def read_told(file: Path) -> dict[str, Any]:
    """Read how a run was made. Of weights that were imported little is known; without the file, nothing."""
    if not file.is_file():
        return {}
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: can't be read ({error}). The file is damaged or not whole.") from error
    if not isinstance(told, dict):
        raise DataError(f"{file}: holds no record of a run. It was not written by medsegdiff.")
    return told


def told_of(folder: Path) -> dict[str, Any]:
    """Read how a run was made, or what was packed of that."""
    if (folder / RECORD).is_file() or not (folder / CONFIG).is_file():
        return read_told(folder / RECORD)
    return dict(packed_facts(folder).get("record", {}))
