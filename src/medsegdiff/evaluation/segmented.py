"""What ``medsegdiff segment`` tells of its results: the one place that reads ``segment.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medsegdiff.config.earlier import with_keys_of_today
from medsegdiff.errors import DataError
from medsegdiff.labels import Labels

SEGMENT_FILE = "segment.json"


@dataclass(frozen=True)
class SegmentedImage:
    """What is told of an image."""

    members: int | None
    agreement: float | None
    """Mean Dice of pairs of members."""


@dataclass(frozen=True)
class Segmented:
    """How the results in a folder were made."""

    labels: Labels
    layout: str
    """Of the data that the model was trained on; empty where it is not told."""
    run: Path | None
    """Folder of the model."""
    fusion: str
    members: int | None
    """As asked, of each image."""
    steps: int | None
    images: tuple[SegmentedImage, ...]
    seconds: float | None
    """For all images; ``None`` if it did not come to an end."""


def folder_of(part: Path) -> Path:
    """Find the folder that ``segment`` wrote, of which this may be a part: ``anchor``, ``members/00``."""
    upwards = (part, *part.resolve().parents[:2])
    return next((place for place in upwards if (place / SEGMENT_FILE).is_file()), part)


def inner(folder: Path, *parts: str) -> Path:
    """Find a part of what ``segment`` wrote; any other folder is taken as it is."""
    return next((folder / part for part in parts if (folder / part).is_dir()), folder)


def read_segmented(part: Path) -> Segmented | None:
    """Read how predictions were made; nothing where ``segment`` did not make them."""
    file = folder_of(part) / SEGMENT_FILE
    if not file.is_file():
        return None
    try:
        return _segmented(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{file}: expected what 'medsegdiff segment' writes; found {type(error).__name__}: {error}. Remove the "
            "file to have the masks taken as they are."
        ) from error


def _segmented(told: Mapping[str, Any]) -> Segmented:
    sampling = with_keys_of_today({"sampling": told.get("sampling", {})})["sampling"]
    images = [SegmentedImage(image.get("members"), image.get("agreement")) for image in told.get("images", ())]
    return Segmented(
        labels=Labels(told["task"], tuple(told["classes"])),
        layout=str(told.get("layout") or ""),
        run=_run(str(told.get("model", ""))),
        fusion=str(sampling.get("fusion", "")),
        members=sampling.get("members"),
        steps=sampling.get("steps"),
        images=tuple(images),
        seconds=told.get("seconds"),
    )


def _run(origin: str) -> Path | None:
    """Find the run's folder in what is written for people: ``runs/isic, best weights``."""
    folder, comma, _ = origin.rpartition(", ")
    return Path(folder) if comma else None
