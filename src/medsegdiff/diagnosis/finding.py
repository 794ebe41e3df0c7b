"""What an examination finds, and the verdict on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from medsegdiff.errors import DataError

Verdict = Literal["good", "to look at", "wrong", "skipped"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    group: str
    """``weights``, ``training``, ``data``, ``sampler``, ``masks``, ``raters`` or ``machine``."""
    name: str
    verdict: Verdict
    found: str
    """What was found, in a sentence."""
    advice: str = ""
    """What to do, where something is to be done."""
    numbers: dict[str, Any] = field(default_factory=dict)
    """What was measured, for programs."""


@dataclass(frozen=True)
class Diagnosis:
    """All findings about a run."""

    run: str
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return all(finding.verdict != "wrong" for finding in self.findings)

    def of(self, group: str, name: str) -> Finding:
        """Look a finding up.

        Args:
            group: Of the finding.
            name: Of the finding.

        Returns:
            The finding.

        Raises:
            KeyError: If there is none.
        """
        for finding in self.findings:
            if (finding.group, finding.name) == (group, name):
                return finding
        raise KeyError(f"{group}/{name}")

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain values.

        Returns:
            For JSON.
        """
        return asdict(self) | {"ok": self.ok}


def guarded(group: str, examine: Callable[[], list[Finding]]) -> list[Finding]:
    """Examine something that may be broken: what can't be read is a finding, not the end.

    Args:
        group: Of the findings.
        examine: Gives them.

    Returns:
        The findings, or one that says what stopped them.
    """
    try:
        return examine()
    except (ValueError, KeyError, TypeError, OSError) as error:  # those of ours are ValueErrors
        return [Finding(group, "readable", "wrong", f"{type(error).__name__}: {error}", "Mend or restore this file.")]


def record_of(folder: Path) -> dict[str, Any]:
    """Read what a run wrote down of how it was made.

    Args:
        folder: The run.

    Returns:
        The contents of ``run.json``; empty without that file.

    Raises:
        DataError: If the file is damaged.
    """
    file = folder / "run.json"
    if not file.is_file():
        return {}
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file}: can't be read ({error}). The file is damaged or not whole.") from error
    if not isinstance(record, dict):
        raise DataError(f"{file}: holds no record of a run. It was not written by medsegdiff.")
    return record
