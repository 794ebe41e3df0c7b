"""Reading back what ``medsegdiff segment`` wrote: where it is, and how it was made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medsegdiff.errors import DataError


def made_in(folder: Path) -> Path:
    """Find the folder that ``segment`` wrote, of which this may be a part: ``anchor``, ``members/00``."""
    upwards = (folder, *folder.resolve().parents[:2])
    return next((place for place in upwards if (place / "segment.json").is_file()), folder)


def told_of(folder: Path) -> dict[str, Any]:
    """Read how predictions were made."""
    made = made_in(folder) / "segment.json"
    if not made.is_file():
        return {}
    try:
        told = json.loads(made.read_text(encoding="utf-8"))
        return {"task": told["task"], "classes": told["classes"], **told}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{made}: expected what 'medsegdiff segment' writes; found {type(error).__name__}: {error}. Remove the "
            "file to have the masks taken as they are."
        ) from error


def inner(folder: Path, *parts: str) -> Path:
    """Find a part of what ``segment`` wrote; any other folder is taken as it is."""
    return next((folder / part for part in parts if (folder / part).is_dir()), folder)


def surer(folder: Path) -> str:
    """Say so where probabilities are STAPLE's."""
    fusion = told_of(folder).get("sampling", {}).get("fusion")
    anchor = folder.resolve().name == "anchor"
    return (
        " They are STAPLE's posterior, surer than the share of members: segment with --save-members to score that."
        if fusion == "staple" and not anchor
        else ""
    )
