"""The systems that the paper compares: which preset stands for a row, as the presets themselves tell."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from medsegdiff.config.load import load_preset, preset_facts, preset_names
from medsegdiff.errors import ConfigError, nearest, some
from medsegdiff.models.base import MODELS
from medsegdiff.paper.tables import PaperTable, load_table

Size = Literal["tiny", "full"]
"""Networks for two CPU cores, or as they were published."""
ROW = re.compile(r"(\S+) of tables? ?\d")
"""How ``reproduces`` of a preset names its rows: ``the row SegDiff of tables 1, 2, 3 and 5``."""
COMPARISONS = ("table1", "table2", "table3")
"""The tables that compare systems."""


@dataclass(frozen=True)
class System:
    """A row, and the preset that stands for it."""

    name: str
    preset: str

    @property
    def pretrained(self) -> str:
        """Weights that its authors began with; empty if none."""
        return MODELS[load_preset(self.preset).model.name].facts.pretrained


def published() -> dict[str, str]:
    """Tell which preset stands for which row of the paper, as published."""
    return {row: fact["name"] for fact in preset_facts() for row in ROW.findall(fact["reproduces"])}


def find_systems(table: PaperTable, names: Sequence[str] = (), *, size: Size) -> tuple[list[System], list[str]]:
    """Look systems up: rows of a table or of another of the paper, and presets; and name rows that have no preset.

    Without names all rows of the table are meant, from top to bottom.
    """
    by_row, found, lacking = published(), list[System](), list[str]()
    for name in names or [row.method for row in table.rows]:
        called = _called(name, table, by_row)
        preset = _sized(_preset(name, by_row), size) if called else name
        if not (called or name in preset_names()):
            raise _unknown(name, table, by_row)
        if preset:
            found.append(System(called or name, preset))
        else:
            lacking.append(called)
    return list(dict.fromkeys(found)), lacking


def _called(name: str, table: PaperTable, by_row: Mapping[str, str]) -> str:
    """Write the name of a row as the table does, or another one, or the preset; empty if it is no row."""
    rows = [row for row in (of.row(name) for of in (table, *map(load_table, COMPARISONS))) if row is not None]
    if rows:
        return rows[0].method
    return next((row for row in by_row if row.casefold() == name.casefold()), "")


def _preset(name: str, by_row: Mapping[str, str]) -> str:
    """Find the preset that names a row by any of its names; empty if none does."""
    rows = [row for row in (load_table(of).row(name) for of in COMPARISONS) if row is not None]
    names = {name.casefold(), *(known.casefold() for row in rows for known in (row.method, *row.aliases))}
    return next((preset for row, preset in by_row.items() if row.casefold() in names), "")


def _sized(preset: str, size: Size) -> str:
    """Find the small preset beside a published one; empty if there is none."""
    small = f"{preset.removesuffix('-paper')}-tiny"
    return preset if size == "full" else small if small in preset_names() else ""


def _unknown(name: str, table: PaperTable, by_row: Mapping[str, str]) -> ConfigError:
    rows = list({row.casefold(): row for row in (*by_row, *(row.method for row in table.rows))}.values())
    close = nearest(name, [*rows, *preset_names()])
    return ConfigError(
        f"No system '{name}' in {table.name}. Known: {some(rows, most=40)}; and names of presets.{close}"
    )
