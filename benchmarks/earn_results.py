"""The small file that `earn.py` keeps of each trial: from these alone the page can be written anew."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

Columns = dict[str, dict[str, float]]
"""Name of a number → case → value; NaN where it is none."""
DIGITS = 5
"""Of a number, in the file."""


@dataclass(frozen=True)
class Key:
    """Which trial it is."""

    data: str
    system: str
    minutes: float
    seed: int

    def __str__(self) -> str:
        """Name its files."""
        return f"{self.data}_{self.system}_{self.minutes:g}min_{self.seed}"


@dataclass(frozen=True)
class Row:
    """A way to segment: the system's own, or that of its anchor."""

    columns: Columns
    seconds: float
    """Of a processor, per image."""
    gflop: float
    """Per image."""
    members: int
    drawn: int
    """Masks that the members were chosen among."""


@dataclass(frozen=True)
class Outcome:
    """What is kept of a trial."""

    key: Key
    groups: dict[str, str]
    """Every test case, and its patient; empty where it is of none."""
    sizes: Columns
    """Pixels of the reference, by structure and case."""
    rows: dict[str, Row]
    rules: dict[str, Columns]
    """Rule of deciding about members → numbers by case."""
    steps: int
    train_seconds: float
    """By the clock on the wall, with validation, calibration and checkpoints."""
    image_size: int
    sampling: dict[str, Any]
    calibration: dict[str, float]
    """On how many cases the probability was calibrated, the anchor's weight, and log scores of the parts there."""
    machine: str
    recipe: str
    """Which configuration it was, but for its seed."""

    def save(self, folder: Path) -> None:
        """Write ``TRIAL.json``: columns as lists in the order of the cases."""
        told = asdict(self)
        cases = list(told.pop("groups"))
        told = {"cases": cases, "groups": [self.groups[case] for case in cases], **_listed(told, cases)}
        lines = (f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in told.items())
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.key}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> Outcome:
        """Read what `save` wrote."""
        told = json.loads(file.read_text(encoding="utf-8"))
        cases = told.pop("cases")
        told = {**_unlisted(told, cases), "groups": dict(zip(cases, told["groups"], strict=True))}
        rows = {name: Row(**row) for name, row in told["rows"].items()}
        given = told | {"key": Key(**told["key"]), "rows": rows}
        return cls(**{of.name: given[of.name] for of in fields(cls)})


def read_all(folder: Path) -> list[Outcome]:
    """Read the files of all trials that there are."""
    return [Outcome.read(file) for file in sorted(folder.glob("*.json"))]


def _listed(value: Any, cases: Sequence[str]) -> Any:
    """Write what is by case as a list, NaN as null."""
    if isinstance(value, Mapping):
        if value and set(value) <= set(cases):
            return [_short(value.get(case, math.nan)) for case in cases]
        return {name: _listed(inner, cases) for name, inner in value.items()}
    return _short(value) if isinstance(value, float) else value


def _unlisted(value: Any, cases: Sequence[str]) -> Any:
    """Undo `_listed`."""
    if isinstance(value, Mapping):
        return {name: _unlisted(inner, cases) if name != "groups" else inner for name, inner in value.items()}
    if isinstance(value, list) and len(value) == len(cases):
        return {case: math.nan if of is None else of for case, of in zip(cases, value, strict=True)}
    return value


def _short(value: float) -> float | None:
    """Round to significant digits; whole numbers stay short."""
    if math.isnan(value):
        return None
    rounded = float(f"{value:.{DIGITS}g}")
    return int(rounded) if rounded.is_integer() else rounded
