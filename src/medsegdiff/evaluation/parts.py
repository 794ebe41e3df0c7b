"""Parts of an evaluation: what was scored of each case, written by several processes and read in one order.

Sums over pixels are added up case by case in the order of all names, as one process does: so the numbers have the same
bits.
"""

from __future__ import annotations

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
NAMED = re.compile(r"(\d+)-of-(\d+)\.jsonl")


def write_part(out: Path, part: Part, asked: Asked, scored: Iterator[CaseScores]) -> None:
    """Write what was scored in a part: the question, and a line for each case."""
    file = out / FOLDER / f"{part.index}-of-{part.count}.jsonl"
    with atomic_path(file, durable=True) as whole, whole.open("w", encoding="utf-8") as lines:
        lines.write(json.dumps(asked.to_dict()) + "\n")
        for case in scored:
            lines.write(json.dumps(_told(case)) + "\n")


def missing_parts(out: Path) -> list[str]:
    """Name the parts that are not there."""
    found = _parts_in(out)
    count = next(iter(found)).count
    return [str(part) for part in (Part(index=n, count=count) for n in range(1, count + 1)) if part not in found]


def question_of(out: Path) -> Asked:
    """Read what all parts were asked."""
    found = _parts_in(out)
    if left := missing_parts(out):
        raise DataError(f"{out}: {some(left)} of the scores are not there yet. Evaluate them too (--part).")
    asked = {json.dumps(json.loads(_first_line(file)), sort_keys=True) for file in found.values()}
    if len(asked) > 1:
        raise DataError(f"{out}: its parts were scored with different options. Evaluate all in the same way.")
    return Asked.of(json.loads(asked.pop()))


def read_parts(out: Path, names: Sequence[str]) -> Iterator[CaseScores]:
    """Read what was scored, in the order of the names."""
    lines = {part: iter(_lines(file)) for part, file in _parts_in(out).items()}
    for name in names:
        told = next(next(lines[part] for part in lines if part.holds(name)), None)
        if told is None or told["name"] != name:
            raise DataError(f"{out}: '{name}' is not in its part; images have come or gone since. Evaluate all again.")
        yield _case(told)


def _parts_in(out: Path) -> dict[Part, Path]:
    matches = [(NAMED.fullmatch(file.name), file) for file in sorted((out / FOLDER).glob("*.jsonl"))]
    found = {Part(index=int(match[1]), count=int(match[2])): file for match, file in matches if match}
    counts = {part.count for part in found}
    if len(counts) != 1:
        told = f"parts of {some(sorted(map(str, counts)))}" if counts else "no part"
        raise DataError(f"{out / FOLDER}: holds {told}; expected 1-of-8.jsonl … 8-of-8.jsonl, say. Remove the others.")
    return found


def _first_line(file: Path) -> str:
    with file.open(encoding="utf-8") as lines:
        return lines.readline()


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
