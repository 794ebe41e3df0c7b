"""A table of the paper laid out for printing: the paper's rows, and ours below those that they belong to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from medsegdiff.paper.results import Ours, Score
from medsegdiff.paper.tables import Column, PaperTable, Row

SIGNS = "†‡§¶‖#"
"""Of the footnotes that say what is wrong with a number of the paper."""
MISSING = "–"
TICK = "✓"
PAPER, OURS, INTERVAL = "paper", "ours", "ours, 95 %"
"""Whose the numbers of a row are; the last are the intervals of the row above."""


@dataclass(frozen=True)
class Cell:
    """Something printed."""

    text: str
    sign: str = ""
    """Points to footnotes."""
    bounds: tuple[str, str] | None = None
    """Low and high, of an interval."""


@dataclass(frozen=True)
class Printed:
    """A table laid out; ``lead`` columns of words come first, then the numbers."""

    name: str
    title: str
    heads: tuple[tuple[str, Cell], ...]
    """By column: the data set over it, and its name."""
    lead: int
    lines: tuple[tuple[Cell, ...], ...]
    footnotes: tuple[tuple[str, str], ...]
    """Sign and words; notes without a sign too."""


def lay_out(table: PaperTable, ours: Sequence[Ours] = ()) -> Printed:
    """Put our rows beside the paper's.

    A row of ours follows the paper's row of the same name; others come last. Numbers of theirs and ours are never in
    one row. Cells that are known to be wrong carry the sign of a footnote.
    """
    columns = [column for column in table.columns if ours or column.whose != "ours"]
    words = [*(["for"] if _grouped(table) else []), *table.parts, "method", "whose"]
    heads = [("", Cell(word)) for word in words]
    heads += [(column.over, Cell(column.name, _sign(table, column.title))) for column in columns]
    lines = [line for row in table.rows for line in _with_ours(table, row, columns, ours)]
    others = [mine for mine in ours if table.row(mine.name) is None]
    lines += [line for mine in others for line in _our_lines(table, mine, None, columns)]
    return Printed(
        name=table.name,
        title=table.title,
        heads=tuple(heads),
        lead=len(words),
        lines=tuple(lines),
        footnotes=tuple(_footnotes(table, ours)),
    )


def _grouped(table: PaperTable) -> bool:
    return any(row.group for row in table.rows)


def _with_ours(
    table: PaperTable, row: Row, columns: Sequence[Column], ours: Sequence[Ours]
) -> Iterator[tuple[Cell, ...]]:
    """Give a row of the paper, and ours below it."""
    cells = (
        Cell(_theirs(row.cells.get(column.title), column), _sign(table, column.title, row.method)) for column in columns
    )
    yield (*_words(table, row, row.method, PAPER), *cells)
    for mine in ours:
        if row.is_called(mine.name):
            yield from _our_lines(table, mine, row, columns)


def _our_lines(table: PaperTable, mine: Ours, row: Row | None, columns: Sequence[Column]) -> Iterator[tuple[Cell, ...]]:
    """Give our numbers, and their intervals below them if there are any."""
    scores = [mine.scores.get(column.title) for column in columns]
    numbers = (
        Cell(f"{score.mean:.{column.digits}f}" if score else MISSING)
        for score, column in zip(scores, columns, strict=True)
    )
    yield (*_words(table, row, mine.name, OURS), *numbers)
    if any(score and score.interval for score in scores):
        intervals = (_interval(score, column) for score, column in zip(scores, columns, strict=True))
        yield (*_words(table, None, mine.name, INTERVAL), *intervals)


def _words(table: PaperTable, row: Row | None, name: str, whose: str) -> list[Cell]:
    group = [row.group if row else ""] if _grouped(table) else []
    ticks = [TICK if row and part in row.parts else "" for part in table.parts]
    return [Cell(word) for word in (*group, *ticks, name, whose)]


def _theirs(value: float | int | None, column: Column) -> str:
    """Write a number of the paper with the digits that it was printed with."""
    if value is None or isinstance(value, int):
        return MISSING if value is None else str(value)
    return f"{value:.{max(column.digits, len(str(value).partition('.')[2]))}f}"


def _interval(score: Score | None, column: Column) -> Cell:
    if score is None or score.interval is None:
        return Cell("")
    low, high = (f"{bound:.{column.digits}f}" for bound in score.interval)
    return Cell(f"{low}–{high}", bounds=(low, high))


def _sign(table: PaperTable, title: str, method: str = "") -> str:
    """Find the signs of the faults of a cell, or, without a method, of a whole column."""
    faults = zip(SIGNS, table.faults, strict=False)
    return "".join(
        sign for sign, fault in faults if ((method, title) in fault.cells if method else title in fault.columns)
    )


def _footnotes(table: PaperTable, ours: Sequence[Ours]) -> Iterator[tuple[str, str]]:
    for sign, fault in zip(SIGNS, table.faults, strict=False):
        yield sign, f"{fault.kind}: {fault.why}"
    for words in (*table.notes, *(remark for mine in ours for remark in mine.remarks)):
        yield "", words
