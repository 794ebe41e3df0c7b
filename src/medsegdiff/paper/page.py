"""A table laid out as a page: intervals below the numbers that they belong to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from medsegdiff.paper.layout import INTERVAL, TICK, Cell, Printed
from medsegdiff.report import html


def page(table: Printed) -> str:
    """Write a page that needs no network."""
    lead = table.lead
    heads = [html.Cell("method"), *(_head(over, head) for over, head in table.heads[lead:])]
    shown = html.Table(heads, list(_rows(table)))
    terms = {sign: words for sign, words in table.footnotes if sign}
    notes = [words for sign, words in table.footnotes if not sign]
    sections = [html.Section(table.name, table.title, tables=[shown], terms=terms)]
    sections += [html.Section("Notes", notes=notes)] if notes else []
    return html.render(f"{table.name}: {table.title}", sections)


def _head(over: str, head: Cell) -> html.Cell:
    return html.Cell(f"{head.text}{head.sign}", below=over)


def _rows(table: Printed) -> Iterator[list[html.Cell]]:
    """Give a row for each line but those of intervals, which go below the numbers of the line before."""
    following = [*table.lines[1:], ()]
    for line, after in zip(table.lines, following, strict=True):
        if _whose(line, table) == INTERVAL:
            continue
        below = after if after and _whose(after, table) == INTERVAL else [Cell("")] * len(line)
        numbers = zip(line[table.lead :], below[table.lead :], strict=True)
        yield [
            html.Cell(line[table.lead - 2].text, below=_about(line, table)),
            *(html.Cell(number.text + number.sign, below=between.text) for number, between in numbers),
        ]


def _about(line: Sequence[Cell], table: Printed) -> str:
    """Say of which group a row is, which parts of the method it has, and whose its numbers are."""
    words = [
        *zip(table.heads, line[: table.lead - 2], strict=False),
        (table.heads[table.lead - 1], line[table.lead - 1]),
    ]
    said = (head.text if cell.text == TICK else cell.text for (_, head), cell in words)
    return " · ".join(filter(None, said))


def _whose(line: Sequence[Cell], table: Printed) -> str:
    return line[table.lead - 1].text
