"""Where weights come from: what is written down of the models that they began with, one behind the other."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from medsegdiff.errors import ConfigError, DataError
from medsegdiff.hub.card import Card
from medsegdiff.io.hashes import sha256_of
from medsegdiff.models.checkpoint import BEST, CONFIG
from medsegdiff.models.exported import is_exported
from medsegdiff.models.packed import check_packed, packed_facts

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


def check_start(folder: Path) -> None:
    """Refuse, before images are read, to start with graphs, a changed packed model, or a card that can't be read."""
    check_packed(folder)
    if is_exported(folder):
        raise ConfigError(
            f"{folder} is an exported run, whose graphs can't be trained. Start with the run that it was made of."
        )
    license_of(folder)


def license_of(folder: Path) -> str:
    """Tell under which licence a model was packed; empty of a run that was not."""
    return str(Card.read(folder).head.get("license", "")) if packed_facts(folder) else ""


def beginning_with(folder: Path) -> dict[str, Any]:
    """Name a model for the record of a run that starts with it, and what that began with itself, if it tells."""
    told, packed = dict[str, Any](), packed_facts(folder)
    with suppress(DataError):  # then it does not tell what it was trained on either, which is said
        told = told_of(folder)
    named = {"name": packed.get("name", ""), "license": license_of(folder)} if packed else {}
    before: dict[str, Any] = {key: told[key] for key in ("imported", "started_from") if key in told}
    return {"folder": str(folder.resolve()), "sha256": sha256_of(folder / BEST), **named, **before}


def ancestors(told: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Walk through the models that the record of a run tells of: the one that it began with, that one's, and so on."""
    while "started_from" in told:
        told = told["started_from"]
        yield told


def given_away(told: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of a record what tells of the machine or of cases."""
    kept = ("cases", "split_sha256", "versions", "imported", "sha256", "name", "license", "trained_known")
    found = {key: told[key] for key in kept if key in told}
    return found | ({"started_from": given_away(told["started_from"])} if "started_from" in told else {})
