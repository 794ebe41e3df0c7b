"""Models that were packed to be given away: the hashes of their files, which are looked at when they are opened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medsegdiff.errors import CheckpointError
from medsegdiff.io.atomic import write_json
from medsegdiff.io.hashes import sha256_of

SECTION = "packed"
"""Of ``config.json``: ``files``, a hash for each; ``precision`` of the weights; ``rounded_from``, a hash."""
CONFIG = "config.json"
SNAPSHOTS = "snapshots"
"""Folder of the hub's cache that has a folder for each commit."""


def packed_facts(folder: Path) -> dict[str, Any]:
    """Tell how a model was packed; nothing of a run that was not."""
    try:
        told = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        found = told.get(SECTION, {})
        return {**found, "files": dict(found["files"])} if found else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder / CONFIG}: can't be read ({error!r}). Get the model anew.") from error


def name_of(folder: Path) -> str:
    """Name a model as it was packed; a run, or a folder that is gone, by its last name."""
    packed = packed_facts(folder) if (folder / CONFIG).is_file() else {}
    return Path(packed.get("name", "")).name or folder.resolve().name


def called(folder: Path) -> str:
    """Name a model by its folder, as users do; in the hub's cache, where folders are commits, as it was packed."""
    place = folder.resolve()
    return name_of(folder) if place.parent.name == SNAPSHOTS else place.name


def check_packed(folder: Path) -> None:
    """Refuse a packed model of which a file is gone or is another than was packed."""
    for name, expected in packed_facts(folder).get("files", {}).items():
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"{file}: is missing; it was packed with this model. Get the model anew.")
        if sha256_of(file) != expected:
            raise CheckpointError(
                f"{file}: is not the file that was packed (SHA-256 {sha256_of(file)[:12]}…, packed was "
                f"{expected[:12]}…): it was damaged or changed. Get the model anew."
            )


def write_packed(folder: Path, facts: Mapping[str, Any], files: list[str]) -> None:
    """Write the hashes of a folder's files into its configuration."""
    told = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    hashes = {name: sha256_of(folder / name) for name in files}
    write_json(folder / CONFIG, {**told, SECTION: {**facts, "files": hashes}})


def repacked(folder: Path, name: str) -> None:
    """Take a file that was written anew into a packed model; of another folder nothing is written."""
    facts = packed_facts(folder) if (folder / CONFIG).is_file() else {}
    if facts:
        others = {key: value for key, value in facts.items() if key != "files"}
        write_packed(folder, others, sorted({*facts["files"], name}))
