"""The trials of one data set in the same minutes, and the rows that they make."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from earn_plan import DATASETS
from earn_results import Outcome
from earn_statistics import Averaged, averaged, common_cases

ROWS = {
    "v2": ("v2", "MedSegDiff-V2"),
    "anchor": ("v2", "its anchor"),
    "anchor-tuned": ("v2", "its anchor, tuned"),
    "alone": ("alone", "the network alone"),
    "nnunet": ("nnunet", "nnU-Net"),
    "ensdiff": ("ensdiff", "EnsDiff"),
    "v1": ("v1", "MedSegDiff"),
}
"""Row → the system whose trials it comes from, and what it is called."""


@dataclass(frozen=True)
class Section:
    """The trials of a data set in the same minutes."""

    data: str
    minutes: float
    outcomes: tuple[Outcome, ...]
    out: Path

    @property
    def cases(self) -> list[str]:
        """List the cases that all have segmented."""
        return common_cases(self.outcomes)

    def of(self, system: str) -> list[Outcome]:
        """Give the trials of a system, by seed."""
        return sorted((of for of in self.outcomes if of.key.system == system), key=lambda of: of.key.seed)

    def rows(self) -> dict[str, Averaged]:
        """Average the trials of every row that there is."""
        found = {row: (title, self.of(system)) for row, (system, title) in ROWS.items()}
        cases, displaced = self.cases, DATASETS[self.data].displaced
        return {row: averaged(row, title, trials, cases, displaced) for row, (title, trials) in found.items() if trials}

    def picture(self, kind: str) -> str:
        """Name a picture."""
        return f"earn_{self.data}_{self.minutes:g}min_{kind}.png"
