"""The tables of the paper as data: what is in them, and what is known to be wrong with them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Literal

import yaml

from medsegdiff.errors import ConfigError, nearest
from medsegdiff.io.names import letters

COSTS = ("parameters", "gmac_forward", "calls", "members", "gmac_all", "agreement", "seconds")
"""What a column can show of a run and its segmentations, besides the metrics of their scores."""


@dataclass(frozen=True)
class Column:
    """A column of numbers."""

    name: str
    over: str = ""
    """The data set that it belongs to, as the paper heads it."""
    metric: str = ""
    """Name in ``metrics.json``, or one of `COSTS`; empty: we have no such number."""
    classes: tuple[str, ...] = ()
    """Names of its structure in data sets, in whatever letters; empty: the mean over all of them."""
    structures: int | None = None
    """Over how many structures it is the mean; ``None``: over those that there are."""
    data: tuple[str, ...] = ()
    """Names by which results are addressed to it."""
    scale: float = 1.0
    """Times our number gives the column's unit."""
    digits: int = 1
    whose: Literal["both", "paper", "ours"] = "both"

    @property
    def title(self) -> str:
        """Data set and name."""
        return f"{self.over} {self.name}".strip()

    def is_of(self, structure: str) -> bool:
        """Tell whether a structure of a data set is its own: letters and figures count, in any case."""
        return letters(structure) in {letters(name) for name in self.classes}


@dataclass(frozen=True)
class Row:
    """A method and the paper's numbers for it."""

    method: str
    cells: Mapping[str, float | int | None]
    """By title of the column; ``None`` where the paper has none, a whole number where it prints no point."""
    group: str = ""
    parts: tuple[str, ...] = ()
    """What the row has of the method, in an ablation."""
    aliases: tuple[str, ...] = ()

    def is_called(self, name: str) -> bool:
        """Tell whether a name means this method."""
        return name.casefold() in {known.casefold() for known in (self.method, *self.aliases)}


@dataclass(frozen=True)
class Fault:
    """What is wrong with cells or columns."""

    kind: Literal["impossible", "undefined", "reading"]
    """Contradicts arithmetic; is not defined in the paper; can't be read with certainty in the scan."""
    why: str
    cells: frozenset[tuple[str, str]] = frozenset()
    """Method and title of the column."""
    columns: frozenset[str] = frozenset()


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    faults: tuple[Fault, ...]
    parts: tuple[str, ...] = ()
    """Parts of the method that an ablation ticks."""
    notes: tuple[str, ...] = ()
    layouts: Mapping[str, str] = field(default_factory=dict)
    """Layout that a folder is found to have → the reading of it that has the table's structures."""

    @property
    def data(self) -> tuple[str, ...]:
        """The data sets whose results have columns of their own; empty where all results are of one."""
        return tuple(dict.fromkeys(column.over for column in self.columns if column.over))

    def row(self, name: str) -> Row | None:
        """Find a method."""
        return next((row for row in self.rows if row.is_called(name)), None)


def table_names() -> list[str]:
    """List the tables."""
    files = resources.files("medsegdiff.paper").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


@functools.cache
def load_table(name: str) -> PaperTable:
    """Read a table, once."""
    known = table_names()
    if name not in known:
        raise ConfigError(f"No table '{name}'. Known: {', '.join(known)}.{nearest(name, known)}")
    file = resources.files("medsegdiff.paper").joinpath(f"{name}.yaml")
    return _table(name, yaml.safe_load(file.read_text(encoding="utf-8")))


def _table(name: str, told: Mapping[str, Any]) -> PaperTable:
    columns = tuple(Column(**_frozen(column)) for column in told["columns"])
    return PaperTable(
        name=name,
        title=told["title"],
        columns=columns,
        rows=tuple(_row(row, columns) for row in told["rows"]),
        faults=tuple(_fault(fault) for fault in told.get("errors", ())),
        parts=tuple(told.get("parts", ())),
        notes=tuple(told.get("notes", ())),
        layouts=told.get("layouts", {}),
    )


def _row(told: Mapping[str, Any], columns: tuple[Column, ...]) -> Row:
    """Name the cells, of which a row has one for each column of the paper."""
    titles = [column.title for column in columns if column.whose != "ours"]
    return Row(**_frozen({**told, "cells": dict(zip(titles, told["cells"], strict=True))}))


def _fault(told: Mapping[str, Any]) -> Fault:
    cells = frozenset((method, column) for method, column in told.get("cells", ()))
    return Fault(told["kind"], told["why"], cells, frozenset(told.get("columns", ())))


def _frozen(told: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in told.items()}
