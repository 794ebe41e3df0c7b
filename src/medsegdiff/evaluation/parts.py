"""Parts of an evaluation: what was scored of each case, written by several processes and read in one order.

Sums over pixels are added up case by case in the order of all names, as one process does: so the numbers have the same
bits. A part remembers the state of what it was scored of, files, patients and what was stated of the cases: where that
has changed since, it is not there.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from medsegdiff.errors import DataError, some
from medsegdiff.evaluation.asked import Asked
from medsegdiff.evaluation.case import CaseScores
from medsegdiff.evaluation.pairing import Pairing
from medsegdiff.evaluation.pool import Pool
from medsegdiff.evaluation.scores import Measure
from medsegdiff.inference.team import Part
from medsegdiff.io.atomic import atomic_path
from medsegdiff.metrics.lesions import Lesions, Matching
from medsegdiff.metrics.plausibility import Appearance
from medsegdiff.metrics.reliability import Calibration
from medsegdiff.metrics.selective import Selection

FOLDER = "parts"
"""In the folder of the scores."""
PLACES = ("predictions", "references")
"""Of the question: where the folders lay when it was asked."""
NAMED = re.compile(r"(\d+)-of-(\d+)\.jsonl")


def write_part(out: Path, part: Part, asked: Asked, pairing: Pairing, scored: Iterator[CaseScores]) -> None:
    """Write what was scored in a part: the question, the state of what it was scored of, and a line for each case."""
    file = out / FOLDER / f"{part.index}-of-{part.count}.jsonl"
    with atomic_path(file, durable=True) as whole, whole.open("w", encoding="utf-8") as lines:
        lines.write(json.dumps(_about(part, asked, pairing)) + "\n")
        for case in scored:
            lines.write(json.dumps(_told(case)) + "\n")


def missing_parts(out: Path, asked: Asked, pairing: Pairing) -> list[str]:
    """Name the parts that are not there, or were asked something else, or were scored of what has changed since."""
    found = _parts_in(out)
    count = next(iter(found)).count
    parts = [Part(index=n, count=count) for n in range(1, count + 1)]
    return [
        str(part)
        for part in parts
        if part not in found or _placeless(_first_line(found[part])) != _placeless(_about(part, asked, pairing))
    ]


def _placeless(about: dict[str, Any]) -> dict[str, Any]:
    """Leave out where folders lie, as JSON has it: a disk may be mounted elsewhere, and the state tells the files."""
    asked = json.loads(json.dumps(about.get("asked") or {}))
    return {**about, "asked": {name: value for name, value in asked.items() if name not in PLACES}}


def _about(part: Part, asked: Asked, pairing: Pairing) -> dict[str, Any]:
    """Tell what a part was asked, and the state of what it is scored of: its first line."""
    return {"asked": asked.to_dict(), "files": _state_of(pairing, part)}


def question_of(out: Path) -> Asked:
    """Read what all parts were asked."""
    lines = [_first_line(file) for file in _parts_in(out).values()]
    if any(_placeless(line)["asked"] != _placeless(lines[0])["asked"] for line in lines):
        raise DataError(f"{out}: its parts were scored with different options. Evaluate all in the same way.")
    if any(line.get("asked") is None for line in lines):
        raise DataError(f"{out}: its parts were scored by an earlier version. Evaluate them again (--part).")
    asked = [Asked.of(line["asked"]) for line in lines]
    return next((one for one in asked if one.predictions.exists() and one.references.exists()), asked[0])


def _state_of(pairing: Pairing, part: Part) -> str:
    """Hash sizes and times of the files of a part, its patients, and what ``segment.json`` says of its cases."""
    state = hashlib.blake2b(digest_size=16)
    for name in filter(part.holds, pairing.names):
        stats = [path.stat() for path in pairing.files(name)]
        told = pairing.stated[name].model_dump(mode="json") if name in pairing.stated else None
        case = [name, [(of.st_size, of.st_mtime_ns) for of in stats], pairing.groups.get(name), told]
        state.update(json.dumps(case).encode())
    return state.hexdigest()


def read_parts(out: Path, names: Sequence[str]) -> Iterator[CaseScores]:
    """Read what was scored, in the order of the names; no part is missing."""
    lines = {part: iter(_lines(file)) for part, file in _parts_in(out).items()}
    for name in names:
        yield _case(next(next(lines[part] for part in lines if part.holds(name))))


def _parts_in(out: Path) -> dict[Part, Path]:
    matches = [(NAMED.fullmatch(file.name), file) for file in sorted((out / FOLDER).glob("*.jsonl"))]
    found = {Part(index=int(match[1]), count=int(match[2])): file for match, file in matches if match}
    counts = {part.count for part in found}
    if len(counts) != 1:
        told = f"parts of {some(sorted(map(str, counts)))}" if counts else "no part"
        raise DataError(f"{out / FOLDER}: holds {told}; expected 1-of-8.jsonl … 8-of-8.jsonl, say. Remove the others.")
    return found


def _first_line(file: Path) -> dict[str, Any]:
    with file.open(encoding="utf-8") as lines:
        told: dict[str, Any] = json.loads(lines.readline())
        return told


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        next(lines)
        yield from map(json.loads, lines)


def _told(case: CaseScores) -> dict[str, Any]:
    """Give a case as plain values; numbers of JSON are read back with the same bits."""
    return {
        "name": case.name,
        "group": case.group,
        "numbers": [[of.metric, of.structure, of.rater, value] for of, value in case.numbers.items()],
        "empty": case.empty,
        "held": sorted(case.held),
        "pools": {
            name: {part: _arrays(getattr(of, part)) for part in ("calibration", "near", "selection")}
            for name, of in case.pools.items()
        },
        "lesions": {name: asdict(of) for name, of in case.lesions.items()},
        "seen": asdict(case.seen),
    }


def _case(told: dict[str, Any]) -> CaseScores:
    return CaseScores(
        told["name"],
        told["group"],
        {Measure(*of): value for *of, value in told["numbers"]},
        tuple(told["empty"]),
        frozenset(told["held"]),
        {
            name: Pool(
                _summed(Calibration, of["calibration"]),
                _summed(Calibration, of["near"]),
                _summed(Selection, of["selection"]),
            )
            for name, of in told["pools"].items()
        },
        {
            name: Lesions(**{**of, "matching": Matching(**of["matching"]), "panoptic": Matching(**of["panoptic"])})
            for name, of in told["lesions"].items()
        },
        Appearance(**told["seen"]),
    )


Sums = TypeVar("Sums", Calibration, Selection)


def _arrays(of: Calibration | Selection) -> dict[str, Any]:
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(of).items()}


def _summed(kind: type[Sums], told: dict[str, Any]) -> Sums:
    values: dict[str, Any] = {name: np.array(of) if isinstance(of, list) else of for name, of in told.items()}
    return kind(**values)
