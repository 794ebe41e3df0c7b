"""What options of ``segment`` mean that are more than a word or a number."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from medsegdiff.errors import ConfigError, nearest

if TYPE_CHECKING:
    from medsegdiff.config.cleaning import Cleaning


def listed_in(source: str) -> list[Path]:
    """Read ``--input-list``: a path on each line; empty lines are passed over."""
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text("utf-8", "surrogateescape")
    except OSError as error:
        raise ConfigError(f"--input-list {source}: can't be read ({error.strerror}).") from error
    lines = text.removeprefix("\ufeff").splitlines()  # a mark that programs on Windows begin with
    return [Path(line) for line in lines if line.strip()]


def parts_of(given: list[str], usual: tuple[str, ...], every: tuple[str, ...]) -> tuple[str, ...]:
    """Read ``--write``."""
    named = tuple(part.strip() for text in given for part in text.split(",") if part.strip())
    return every if "all" in named else named or usual


def runs_of(given: list[Path]) -> list[Path]:
    """Read ``--model``: folders or names of models, with commas between if there is no folder of that name."""
    from medsegdiff.hub.place import place_of

    parts = [part for path in given for part in ([str(path)] if path.exists() else str(path).split(","))]
    return [place_of(part.strip()) for part in parts]


def cleaning_of(
    structures: Sequence[str], keep: list[str], remove_below: list[str], holes: list[str], *, none: bool
) -> dict[str, Cleaning] | None:
    """Read what is to be cleaned; ``None``: as the run has learned it."""
    from medsegdiff.config.cleaning import read_cleaning

    asked = any((keep, remove_below, holes))
    if asked and none:
        raise ConfigError("--no-cleaning with --keep, --remove-below or --fill-holes: leave one of them out.")
    read = read_cleaning(structures, keep=keep, remove_below=remove_below, fill_holes=holes)
    return read if asked or none else None


def members_of(text: str | None) -> int | Literal["auto"] | None:
    """Read ``--members``."""
    if text is None or text == "auto":
        return "auto" if text else None
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"--members is {text}; allowed are numbers from 1, and auto.")
    return int(text)


def codes_in(file: Path, structures: Sequence[str]) -> dict[str, str]:
    """Read ``--dicom-codes``: YAML, a code for each structure that has one."""
    import yaml

    from medsegdiff.io.dicom_codes import read_code

    try:
        told = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"--dicom-codes {file}: can't be read ({error}).") from error
    if not isinstance(told, dict):
        raise ConfigError(f"--dicom-codes {file}: expected are lines such as 'liver: SCT:10200004'.")
    codes = {str(name): str(code) for name, code in told.items()}
    if unknown := [name for name in codes if name not in structures]:
        raise ConfigError(
            f"--dicom-codes {file}: the model has no structure '{unknown[0]}'; it has {', '.join(structures)}."
            f"{nearest(unknown[0], structures)}"
        )
    for name, code in codes.items():
        read_code(code, name)
    return codes


def share_of(text: str | None) -> float | None:
    """Read ``--review-share``: 10% or 0.1."""
    if text is None:
        return None
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ConfigError(f"--review-share is {text}; allowed are shares such as 10% or 0.1.")
    return share
