"""How results get where they belong: each file to each target once, tried again later where that fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from medsegdiff.server.pacs.inbox import Series
from medsegdiff.server.pacs.peers import DeliveryError, UnreachableError

SENT = {"dicom-seg": "SEG", "dicom-sr": "SR", "dicom-pm": "PM", "rtstruct": "RTSTRUCT"}
"""Parts of results that a PACS may get, in the order in which it gets them, and what DICOM calls them."""
PAUSES = (5.0, 15.0, 60.0, 300.0)
"""Seconds until what failed is tried again, longer and longer."""


@runtime_checkable
class Target(Protocol):
    """Where results go."""

    def __str__(self) -> str:
        """Name it, for records."""

    def send(self, file: Path) -> None:
        """Deliver a file, or raise `DeliveryError`."""


class Pauses:
    """Remembers what failed, and until when it is left alone; a target that can't be reached has a pause of its own."""

    def __init__(self) -> None:
        self._failures: dict[tuple[str, str], tuple[int, float]] = {}

    def wait(self, series: str = "", target: str = "") -> bool:
        """Tell whether it is too early for another attempt."""
        return self._failures.get((series, target), (0, 0.0))[1] > time.monotonic()

    def begin(self, series: str = "", target: str = "") -> float:
        """Leave something alone for some seconds."""
        count = self._failures.get((series, target), (0, 0.0))[0]
        pause = PAUSES[min(count, len(PAUSES) - 1)]
        self._failures[series, target] = count + 1, time.monotonic() + pause
        return pause

    def forget(self, series: str = "", target: str = "") -> None:
        """Begin with the shortest pause again."""
        self._failures.pop((series, target), None)


class Delivery:
    """Sends results to targets, none of which waits for another."""

    def __init__(self, targets: Sequence[Target], pauses: Pauses, noted: Callable[[str], None]) -> None:
        self.targets, self.pauses, self.noted = targets, pauses, noted

    def send(self, series: Series) -> bool:
        """Send what is not yet sent, and tell whether all has arrived."""
        arrived = [self._sent(series, target) for target in self.targets]
        return all(arrived)

    def _sent(self, series: Series, target: Target) -> bool:
        whom = str(target)
        if (made := series.made) is None:  # images came, or results are damaged
            return False
        if not (left := made.left(whom)):
            return True
        if self.pauses.wait(target=whom) or self.pauses.wait(series.uid, whom):
            return False
        sent, wrong = list[str](), list[DeliveryError]()
        for name, sha256 in left.items():
            if (file := series.result(name, sha256)) is None:
                self.noted(f"Series {series.uid}: its results are damaged, and will be made again.")
                series.discard()
                return False
            try:
                target.send(file)
            except DeliveryError as error:
                wrong.append(error)
                if isinstance(error, UnreachableError):
                    break
                continue
            series.deliver(name, whom)
            sent.append(SENT[file.parent.name])
        if sent:
            self.noted(f"Series {series.uid}: {', '.join(sent)} delivered to {whom}.")
        self._pause(series, whom, wrong)
        return not wrong

    def _pause(self, series: Series, whom: str, wrong: Sequence[DeliveryError]) -> None:
        unreachable = any(isinstance(error, UnreachableError) for error in wrong)
        if not unreachable:
            self.pauses.forget(target=whom)
        if not wrong:
            self.pauses.forget(series.uid, whom)
            return
        pause = self.pauses.begin("" if unreachable else series.uid, whom)
        for error in dict.fromkeys(map(str, wrong)):
            self.noted(f"Series {series.uid}: {error} The next attempt is in {pause:g} s.")
