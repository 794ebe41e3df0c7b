"""Writing a table that is laid out: as text, CSV, LaTeX, Markdown or a page."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Sequence

from medsegdiff.paper.layout import INTERVAL, MISSING, OURS, PAPER, TICK, Cell, Printed

LATEX = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "−": "$-$",
    "…": r"\dots{}",
    TICK: r"$\surd$",
}
LATEX_SIGNS = {"†": r"\dagger", "‡": r"\ddagger", "§": r"\S", "¶": r"\P", "‖": r"\|", "#": r"\#"}


def as_text(table: Printed) -> str:
    """Write columns of equal width, for the terminal."""
    over = _once([over for over, _ in table.heads])
    rows = [over, [_signed(head) for _, head in table.heads], *([_signed(c) for c in line] for line in table.lines)]
    rows = rows if any(over) else rows[1:]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_aligned(row, widths, table.lead) for row in rows]
    heads = len(rows) - len(table.lines)
    rule = "─" * max(map(len, lines))
    return "\n".join([f"{table.name}: {table.title}", rule, *lines[:heads], rule, *lines[heads:], rule, *_notes(table)])


def _aligned(row: Sequence[str], widths: Sequence[int], lead: int) -> str:
    cells = (
        text.ljust(width) if i < lead else text.rjust(width)
        for i, (text, width) in enumerate(zip(row, widths, strict=True))
    )
    return "  ".join(cells).rstrip()


def _once(names: Sequence[str]) -> list[str]:
    """Keep the first of equal neighbours."""
    return [name if i == 0 or names[i - 1] != name else "" for i, name in enumerate(names)]


def _signed(cell: Cell) -> str:
    return cell.text + cell.sign


def _notes(table: Printed) -> list[str]:
    return [f"{sign} {words}".strip() for sign, words in table.footnotes]


def as_csv(table: Printed) -> str:
    """Write comma-separated values: numbers alone, what is wrong with them in the last column.

    Intervals take two rows, the low bounds and the high ones; what is missing is empty.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    titles = [f"{over} {head.text}".strip() for over, head in table.heads]
    writer.writerow([*titles, "errors"])
    for line in table.lines:
        wrong = _wrong(table, line, titles)
        writer.writerows([*row, wrong] for row in _plain(line, table.lead))
    return text.getvalue().rstrip("\n")


def _plain(line: Sequence[Cell], lead: int) -> list[list[str]]:
    """Strip a line of everything but words and numbers."""
    words = [cell.text for cell in line[:lead]]
    if words[-1] != INTERVAL:
        return [[*words, *("" if cell.text == MISSING else cell.text for cell in line[lead:])]]
    bounds = [cell.bounds or ("", "") for cell in line[lead:]]
    return [[*words[:-1], f"{INTERVAL} {end}", *(pair[i] for pair in bounds)] for i, end in enumerate(("low", "high"))]


def _wrong(table: Printed, line: Sequence[Cell], titles: Sequence[str]) -> str:
    """Say which numbers of a paper's line are wrong, and why."""
    if line[table.lead - 1].text != PAPER:
        return ""
    why = {sign: words for sign, words in table.footnotes if sign}
    signs = [head.sign + cell.sign for (_, head), cell in zip(table.heads, line, strict=True)]
    found = [f"{title}: {why[sign]}" for title, all_of in zip(titles, signs, strict=True) for sign in all_of]
    return " | ".join(found)


def as_markdown(table: Printed) -> str:
    """Write a table of Markdown."""
    heads = [f"{over} {_signed(head)}".strip() for over, head in table.heads]
    rule = ["---" if i < table.lead else "---:" for i in range(len(heads))]
    rows = [heads, rule, *([_emphasised(cell, line, table.lead) for cell in line] for line in table.lines)]
    lines = ["| " + " | ".join(text.replace("|", r"\|") for text in row) + " |" for row in rows]
    return "\n".join([f"**{table.name}**: {table.title}", "", *lines, "", *(f"* {note}" for note in _notes(table))])


def _emphasised(cell: Cell, line: Sequence[Cell], lead: int) -> str:
    """Print the name of our rows bold."""
    name = lead > 1 and cell is line[lead - 2] and line[lead - 1].text == OURS
    return f"**{cell.text}**" if name else _signed(cell)


def as_latex(table: Printed) -> str:
    """Write a table of LaTeX that needs no package."""
    columns = "l" * table.lead + "r" * (len(table.heads) - table.lead)
    over = [(name, len(list(run))) for name, run in itertools.groupby(over for over, _ in table.heads)]
    above = [rf"\multicolumn{{{n}}}{{c}}{{{_latex(name)}}}" if name else " & " * (n - 1) for name, n in over]
    names = [_latex_cell(head) for _, head in table.heads]
    body = [" & ".join(_latex_cell(cell) for cell in line) + r" \\" for line in table.lines]
    notes = [rf"\par {_latex_sign(sign)} {_latex(words)}" for sign, words in table.footnotes]
    lines = [
        r"\begin{table*}",
        rf"\caption{{{_latex(table.title)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\hline",
        *([" & ".join(above) + r" \\"] if any(name for name, _ in over) else []),
        " & ".join(names) + r" \\",
        r"\hline",
        *body,
        r"\hline",
        r"\end{tabular}",
        *notes,
        r"\end{table*}",
    ]
    return "\n".join(lines)


def _latex_cell(cell: Cell) -> str:
    return _latex(cell.text) + _latex_sign(cell.sign)


def _latex_sign(signs: str) -> str:
    return "$^{" + " ".join(LATEX_SIGNS[sign] for sign in signs) + "}$" if signs else ""


def _latex(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)


def as_html(table: Printed) -> str:
    """Write a page of its own, without a network."""
    from medsegdiff.paper.page import page  # what draws pages takes long to import

    return page(table)


FORMATS: dict[str, Callable[[Printed], str]] = {
    "text": as_text,
    "csv": as_csv,
    "latex": as_latex,
    "markdown": as_markdown,
    "html": as_html,
}
