"""``medsegdiff report``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medsegdiff.cli.console import give, say

if TYPE_CHECKING:
    from medsegdiff.paper.results import Costs


class Table(StrEnum):
    """A table of the paper."""

    TABLE1 = "table1"
    TABLE2 = "table2"
    TABLE3 = "table3"
    TABLE4 = "table4"
    TABLE5 = "table5"


class Format(StrEnum):
    """How it is written."""

    TEXT = "text"
    CSV = "csv"
    LATEX = "latex"
    MARKDOWN = "markdown"


def report(
    table: Annotated[Table, typer.Argument(help="Which table of the paper.")],
    results: Annotated[
        list[str] | None,
        typer.Argument(
            help="NAME=FOLDER of 'medsegdiff evaluate --out'; NAME/DATA=FOLDER for tables 1 and 4, DATA as the table "
            "heads its columns. Table 5 also takes folders of segmentations and runs; a name may have several.",
            show_default=False,
        ),
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="text, csv, latex or markdown.")] = Format.TEXT,
    out: Annotated[Path | None, typer.Option(dir_okay=False, help="File to write instead of printing.")] = None,
) -> None:
    """Print a table of the paper, our results beside its numbers, and what is known to be wrong with these.

    Example: `medsegdiff report table1 MedSegDiff-V2/ISIC=scores/isic MedSegDiff-V2/REFUGE2=scores/refuge2`

    A row of ours stands below the paper's row of the same name; `medsegdiff report table2` prints the paper's alone.
    """
    from medsegdiff.paper.formats import FORMATS
    from medsegdiff.paper.layout import lay_out
    from medsegdiff.paper.results import gather, parse_result
    from medsegdiff.paper.tables import COSTS, load_table

    asked = load_table(table.value)
    given = [parse_result(text, asked) for text in results or []]
    costly = given and any(column.metric in COSTS for column in asked.columns)
    ours = gather(asked, given, costs=_costs() if costly else None)
    text = FORMATS[format_.value](lay_out(asked, ours))
    if out is None:
        give(text)
        return
    from medsegdiff.io.atomic import write_text

    write_text(out, text + "\n")
    say(f"{asked.name}: {out}")


def _costs() -> Costs:
    """Import what counts operations, which the other tables do without."""
    from medsegdiff.paper.costs import costs

    return costs
