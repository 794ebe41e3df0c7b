"""Which cases train, validate and test: read from ``split.csv``, or drawn with a seed and written there."""

from __future__ import annotations

import csv
import hashlib
import io
import random
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from medsegdiff.config.data import DataConfig
from medsegdiff.data.dataset import CaseFiles
from medsegdiff.errors import DataError, some
from medsegdiff.io.atomic import write_text
from medsegdiff.io.listing import SUFFIXES
from medsegdiff.io.names import composed
from medsegdiff.seeding import derive_seed

Item = TypeVar("Item")

NAME_COLUMNS = ("id", "name", "case", "image")
GROUP_COLUMNS = tuple(word + end for word in ("group", "patient", "subject", "participant") for end in ("", "id"))
LIKE_SPLIT = ("set", "fold", "part", "partition", "subset", "splits")
"""Columns that may tell of parts, and are not read: what says ``train`` there has to stand in ``split``."""
SPLIT_WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
SAID = re.compile(r"sep=([,;\t])\r?\n", re.IGNORECASE)
"""A first line that tells spreadsheets what separates cells."""


@dataclass(frozen=True)
class Entry:
    """A row of ``split.csv``."""

    name: str
    part: str
    group: str
    """Cases of one group (a patient, say) stay together; empty where the file does not say."""


@dataclass(frozen=True)
class Columns:
    """The columns of a table of cases, as they are spelt there; empty where there is none."""

    name: str
    part: str
    group: str

    def read(self, row: Mapping[str, Any]) -> Entry:
        """Read a row, without blanks around what it says."""
        cells = (row.get(column) if column else None for column in (self.name, self.part, self.group))
        return Entry(*("" if cell is None else composed(str(cell).strip()) for cell in cells))


def columns_of(table: Mapping[str, Iterable[object]], names: Sequence[str], where: object) -> Columns:
    """Find the columns of name, part and group, whatever their capital letters and gaps (``Patient ID``).

    Of several columns of groups it is the first that says something.
    """
    spelt: dict[str, str] = {}
    for column in table:
        spelt.setdefault(_plain(column), column)
    said = {word: _said(table[column]) for word, column in spelt.items()}
    groups = sorted((word for word in GROUP_COLUMNS if word in spelt), key=lambda word: not said[word])
    name, part, group = (next((spelt[word] for word in of if word in spelt), "") for of in (names, ("split",), groups))
    if not part and (strange := next((spelt[word] for word in LIKE_SPLIT if _parts(word, said.get(word, ()))), "")):
        raise DataError(
            f"{where}: the column {strange} has no meaning. Parts (train, val, test) are in split, patients in patient "
            "(subject, group): rename it, or remove it."
        )
    return Columns(name, part, group)


def _plain(column: str) -> str:
    return re.sub(r"[\W_]+", "", column.casefold())


def _said(values: Iterable[object]) -> set[str]:
    """List what a column says, in small letters."""
    return {str(value).strip().casefold() for value in values if value is not None} - {""}


def _parts(column: str, said: Iterable[str]) -> bool:
    """Tell whether a column says in which part of a split cases are, in words, or as the number of a fold."""
    return any(
        word in SPLIT_WORDS or word in ("dev", "testing") or (column == "fold" and word.isdigit()) for word in said
    )


@dataclass(frozen=True)
class Before:
    """The parts that cases have had in a run that training starts with."""

    parts: Mapping[str, str]
    """By name."""
    run: str
    """What the run is called in messages."""


def make_split(cases: Mapping[str, CaseFiles], config: DataConfig, *, before: Before | None = None) -> dict[str, str]:
    """Split as the data set says, or at random; validation cases come out of the training cases where none are.

    Where parts are drawn, cases stay in the part that they had ``before``, and so do new cases of their groups, as long
    as each part keeps some. What was trained on is not held out.
    """
    before = before or Before({}, "")
    told = any(case.part for case in cases.values())
    entries = [Entry(name, cases[name].part or "train", cases[name].group or name) for name in sorted(cases)]
    groups = _parts_of_groups(entries, before.parts)
    if not told:
        entries = _move(entries, "test", config.test_fraction, config.split_seed, groups)
    if all(entry.part != "val" for entry in entries):
        entries = _move(entries, "val", config.val_fraction, config.split_seed, groups)
    for part in ("train", "val"):
        if all(entry.part != part for entry in entries):
            seen = sum(groups.get(entry.group) == "train" for entry in entries)
            raise DataError(f"No case is left for the part '{part}': {_counted(entries)}{_why(seen, before.run)}")
    return {entry.name: entry.part for entry in entries}


def _why(seen: int, run: str) -> str:
    """Say that training data are not held out, and what to do."""
    if not seen:
        return ""
    return (
        f" By their names, {run} has been trained on {seen} of them, and none of these is held out. If they are other "
        "cases, say in a split.csv in the data which train, validate and test."
    )


def _parts_of_groups(entries: Sequence[Entry], before: Mapping[str, str]) -> dict[str, str]:
    """Find the part that groups had; of several, that which has seen most: what was trained on is not held out."""
    found: dict[str, str] = {}
    for part in ("test", "val", "train"):
        found |= {entry.group: part for entry in entries if before.get(entry.name) == part}
    return found


def _counted(entries: Sequence[Entry]) -> str:
    """Say what there is to split, and what would give more parts."""
    parts = Counter(entry.part for entry in entries)
    groups = len({entry.group for entry in entries})
    shares = ", ".join(f"{count} {part}" for part, count in parts.items())
    told = f"there are {len(entries)} cases in all ({shares})"
    if groups == len(entries):
        return f"{told}. Add cases, or name more in split.csv."
    return (
        f"{told}, in groups (patients, say) that stay together, of which there are {groups}. Add cases, or name more "
        "in split.csv, with a column patient if the groups are wrong; if sub-folders are none, set "
        "data.image_folders=kinds."
    )


def assign(cases: Mapping[str, CaseFiles], file: Path) -> dict[str, CaseFiles]:
    """Put cases into the parts that a file names; of one that names patients alone, all others stay by themselves."""
    if not file.is_file():
        return dict(cases)
    entries = [replace(entry, name=resolve(entry.name, cases)) for entry in read_split(file)]
    _check(file, entries, cases)
    rows = {entry.name: entry for entry in entries}
    if rows and not any(entry.part for entry in entries):
        rows = {name: Entry(name, "", "") for name in cases} | rows
    return {
        name: replace(case, part=rows[name].part or held_out(case.part), group=rows[name].group or case.group)
        for name, case in sorted(cases.items())
        if name in rows
    }


def held_out(part: str) -> str:
    """Keep what is held out held out, where a file names groups and no parts: only training cases are split anew."""
    return part if part in ("val", "test") else ""


def open_table(file: Path) -> csv.DictReader[str]:
    """Open a table of cases, whose cells are separated by what separates the names of its columns.

    Spreadsheets write semicolons where a comma stands in numbers, and some say so in a line before (``sep=;``).
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: can't be read as UTF-8 text ({error}). Save it as 'CSV UTF-8'.") from error
    if said := SAID.match(text):
        return _rows(text[said.end() :], said[1])
    head = text.partition("\n")[0]
    marks = [mark for mark in ",;\t" if mark in head] or [","]
    naming = (
        mark for mark in marks if any(_plain(cell) in NAME_COLUMNS for cell in _rows(head, mark).fieldnames or ())
    )
    return _rows(text, next(naming, marks[0]))


def _rows(text: str, separator: str) -> csv.DictReader[str]:
    return csv.DictReader(io.StringIO(text), delimiter=separator, restkey="beyond", restval="")


def read_split(file: Path) -> list[Entry]:
    """Read ``split.csv``: a column ``id`` (name, case, image), beside it ``split``, ``patient`` (or group) or both."""
    reader = open_table(file)
    rows, given = list(reader), [str(column) for column in reader.fieldnames or []]
    found = columns_of({column: [row[column] for row in rows] for column in given}, NAME_COLUMNS, file)
    if not found.name or not (found.part or found.group):
        raise DataError(
            f"{file}: expected the column id, and split or patient or both, separated by commas, semicolons or tabs; "
            f"found: {some(given)}. Name its columns so."
        )
    entries = [found.read(row) for row in rows]
    if found.part and (strange := sorted({entry.part for entry in entries if not _part(entry.part)})):
        raise DataError(f"{file}: unknown split '{strange[0]}'; allowed are train, val and test.")
    return [replace(entry, part=_part(entry.part)) for entry in entries]


def resolve(name: str, known: Set[str] | Mapping[str, object]) -> str:
    """Find the case that a row means: tables often name files, with their endings. It is looked up, not searched."""
    given = composed(name)
    if given in known:
        return given
    ending = next((s for s in sorted(SUFFIXES, key=len, reverse=True) if given.lower().endswith(s)), "")
    return given.removesuffix(given[len(given) - len(ending) :]) if ending else given


def _part(text: str) -> str:
    return SPLIT_WORDS.get(text.strip().lower(), "")


def _check(file: Path, entries: Sequence[Entry], names: Collection[str]) -> None:
    listed = [entry.name for entry in entries]
    if unknown := sorted(set(listed) - set(names)):
        raise DataError(f"{file}: {len(unknown)} cases have no image: {some(unknown)}. Remove or correct their rows.")
    if twice := sorted(name for name, times in Counter(listed).items() if times > 1):
        raise DataError(f"{file}: listed more than once: {some(twice)}. Keep one row for each.")


def _move(entries: Sequence[Entry], part: str, fraction: float, seed: int, before: Mapping[str, str]) -> list[Entry]:
    """Move a share of the training groups (patients, say) into another part: those that were there, then new ones.

    Of those that were there, no more than the share where the other parts would be left with nothing; where none was
    and none is new, of all that have not been trained on.
    """
    groups = sorted({entry.group for entry in entries if entry.part == "train"})
    count = round(fraction * len(groups))
    if fraction > 0 and len(groups) > 1:
        count = min(max(count, 1), len(groups) - 1)
    left = 1 if part == "test" else 0  # for validation, which has not been trained on either
    unseen = [group for group in groups if before.get(group) != "train"]
    stay = [group for group in unseen if before.get(group) == part]
    rng = random.Random(derive_seed(seed, "split", part))
    if len(stay) > min(len(unseen) - left, len(groups) - left - 1):
        stay = rng.sample(stay, min(count, len(stay)))
    new = [group for group in unseen if group not in before]
    pool = new if stay or new else unseen
    chosen = {*stay, *rng.sample(pool, max(0, min(count - len(stay), len(pool), len(unseen) - len(stay) - left)))}
    return [Entry(e.name, part, e.group) if e.part == "train" and e.group in chosen else e for e in entries]


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """Take so many from all over a sequence, its ends among them; all where there are no more."""
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in places]


def names_in(file: Path, part: str) -> set[str]:
    """List the cases of a part."""
    if not file.is_file():
        raise DataError(f"{file}: there is no such file, so the split '{part}' is not known.")
    entries = read_split(file)
    wanted = _part(part)
    found = {entry.name for entry in entries if part == "all" or (wanted and entry.part == wanted)}
    if not found:
        raise DataError(
            f"{file}: the split '{part}' holds no case; there are {some(sorted({e.part for e in entries}))}."
        )
    return found


def write_split(file: Path, split: Mapping[str, str]) -> str:
    """Write a split so that a run can be repeated."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "split"])
    writer.writerows(sorted(split.items()))
    write_text(file, text.getvalue())
    return hashlib.sha256(text.getvalue().encode()).hexdigest()
