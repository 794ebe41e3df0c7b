"""What an examination finds, and the verdict on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from medsegdiff.errors import MedSegDiffError

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
        """Look a finding up."""
        for finding in self.findings:
            if (finding.group, finding.name) == (group, name):
                return finding
        raise KeyError(f"{group}/{name}")

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain values."""
        return asdict(self) | {"ok": self.ok}


def guarded(group: str, examine: Callable[[], list[Finding]], *, advice: str) -> list[Finding]:
    """Examine something that may be broken: what can't be read is a finding, not the end."""
    try:
        return examine()
    except (ValueError, KeyError, TypeError, OSError) as error:  # those of ours are ValueErrors
        told = str(error) if isinstance(error, MedSegDiffError) else f"{type(error).__name__}: {error}"
        return [Finding(group, "readable", "wrong", told, advice)]
