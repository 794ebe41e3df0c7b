"""Which cases train, validate and test: read from ``split.csv``, or drawn with a seed and written there."""

from __future__ import annotations

import csv
import hashlib
import io
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from medsegdiff.config import DataConfig
from medsegdiff.errors import DataError
from medsegdiff.io.atomic import write_text
from medsegdiff.seeding import derive_seed

NAME_COLUMNS = ("id", "name", "case", "image")
GROUP_COLUMNS = ("group", "patient", "subject")
SPLIT_WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def make_split(names: Iterable[str], file: Path, config: DataConfig) -> dict[str, str]:
    """Split cases as a file says, or at random; take validation cases out of the training cases where none are named.

    Args:
        names: All cases.
        file: ``split.csv``; it need not exist.
        config: Fractions and seed.

    Returns:
        Name → ``train``, ``val`` or ``test``.

    Raises:
        DataError: If the file can't be understood, or a part would be empty.
    """
    known = sorted(names)
    if file.is_file():
        split, groups = read_split(file, known)
    else:
        groups = {name: name for name in known}
        split = _move(dict.fromkeys(known, "train"), groups, "test", config.test_fraction, config.split_seed)
    if "val" not in split.values():
        split = _move(split, groups, "val", config.val_fraction, config.split_seed)
    if "train" not in split.values():
        raise DataError(
            f"No case is left for training: {len(known)} cases in all. Add cases, or name more in split.csv."
        )
    return split


def read_split(file: Path, names: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Read ``split.csv``: a column ``id`` (or name), a column ``split``, and maybe ``patient`` (or group).

    Args:
        file: The file.
        names: All cases there are; those that the file does not name are left out.

    Returns:
        Name → part, and name → group.

    Raises:
        DataError: If columns are missing, a case does not exist or appears twice, or a part is unknown.
    """
    with file.open(newline="", encoding="utf-8-sig") as handle:
        rows = list(csv.DictReader(handle))
    columns = list(rows[0]) if rows else []
    name_column = next((c for c in NAME_COLUMNS if c in columns), None)
    if name_column is None or "split" not in columns:
        raise DataError(f"{file}: expected the columns 'id' and 'split', found: {', '.join(columns) or 'nothing'}.")
    group_column = next((c for c in GROUP_COLUMNS if c in columns), name_column)
    listed = [Path(row[name_column]).stem if row[name_column] not in names else row[name_column] for row in rows]
    _check_rows(file, listed, [row["split"] for row in rows], names)
    split = {name: SPLIT_WORDS[row["split"].lower()] for name, row in zip(listed, rows, strict=True)}
    return split, {name: row[group_column] for name, row in zip(listed, rows, strict=True)}


def _check_rows(file: Path, listed: Sequence[str], parts: Sequence[str], names: Sequence[str]) -> None:
    unknown = sorted(set(listed) - set(names))
    if unknown:
        raise DataError(
            f"{file}: {len(unknown)} cases have no image, e.g. {', '.join(unknown[:5])}. Remove their rows."
        )
    twice = sorted({name for name in listed if listed.count(name) > 1}) if len(set(listed)) < len(listed) else []
    if twice:
        raise DataError(f"{file}: listed more than once: {', '.join(twice[:5])}. Keep one row for each.")
    strange = sorted({part for part in parts if part.lower() not in SPLIT_WORDS})
    if strange:
        raise DataError(f"{file}: unknown split '{strange[0]}'; allowed are train, val and test.")


def _move(split: dict[str, str], groups: Mapping[str, str], part: str, fraction: float, seed: int) -> dict[str, str]:
    """Move a share of the training groups (patients, say) into another part, whole groups at a time."""
    candidates = sorted({groups[name] for name, now in split.items() if now == "train"})
    count = round(fraction * len(candidates))
    if fraction > 0 and len(candidates) > 1:
        count = min(max(count, 1), len(candidates) - 1)
    chosen = set(random.Random(derive_seed(seed, "split", part)).sample(candidates, min(count, len(candidates))))
    return {n: part if now == "train" and groups[n] in chosen else now for n, now in split.items()}


def write_split(file: Path, split: Mapping[str, str]) -> str:
    """Write a split so that a run can be repeated.

    Args:
        file: Where.
        split: Name → part.

    Returns:
        SHA-256 of what was written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "split"])
    writer.writerows(sorted(split.items()))
    write_text(file, text.getvalue())
    return hashlib.sha256(text.getvalue().encode()).hexdigest()
