"""What a reproduction of a table found: our rows below the paper's, and the files that keep them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medsegdiff.io.atomic import write_json, write_text
from medsegdiff.paper.formats import FORMATS
from medsegdiff.paper.layout import Printed, lay_out
from medsegdiff.paper.results import Ours
from medsegdiff.paper.tables import PaperTable

RESULTS = "results.json"
FILES = {"csv": "csv", "markdown": "md", "html": "html"}
"""Format → ending of the file that is saved in it."""


@dataclass(frozen=True)
class Reproduction:
    """What was found."""

    plan: Mapping[str, Any]
    """As plain values."""
    table: PaperTable
    """With columns of our own."""
    rows: tuple[Ours, ...]
    facts: Mapping[str, Mapping[str, Any]]
    """By row: what is known beside its numbers, as plain values."""

    @property
    def printed(self) -> Printed:
        """Our rows below the paper's."""
        return lay_out(self.table, self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain values."""
        return {
            "table": self.table.name,
            "plan": self.plan,
            "rows": {
                row.name: {
                    "paper": {} if (paper := self.table.row(row.name)) is None else dict(paper.cells),
                    "ours": {title: asdict(score) for title, score in row.scores.items()},
                    **self.facts[row.name],
                }
                for row in self.rows
            },
            "notes": [*self.table.notes, *(remark for row in self.rows for remark in row.remarks)],
        }

    def save(self, out: Path) -> list[Path]:
        """Write ``results.json``, and the table as CSV, Markdown and a page; tell where."""
        write_json(out / RESULTS, self.to_dict())
        files = {form: out / f"{self.table.name}.{ending}" for form, ending in FILES.items()}
        for form, file in files.items():
            write_text(file, FORMATS[form](self.printed) + "\n")
        return [out / RESULTS, *files.values()]
