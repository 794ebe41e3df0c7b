"""What becomes of a series: it is segmented, its results are delivered, and both are recorded."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from medsegdiff.data.dataset import CaseFiles
from medsegdiff.errors import MedSegDiffError
from medsegdiff.inference.files import segment_files
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.io.listing import is_series, list_images
from medsegdiff.server.pacs.inbox import Series
from medsegdiff.server.pacs.peers import DeliveryError, sendable

log = logging.getLogger(__name__)

SENT = {"dicom-seg": "SEG", "dicom-sr": "SR", "dicom-pm": "PM", "rtstruct": "RTSTRUCT"}
"""Parts of results that a PACS may get, in the order in which it gets them, and what DICOM calls them."""
USUAL = ("dicom-seg", "dicom-sr", "dicom-pm")
PAUSES = (5.0, 15.0, 60.0, 300.0)
"""Seconds until a delivery that failed is tried again, longer and longer."""


@runtime_checkable
class Target(Protocol):
    """Where results go."""

    def __str__(self) -> str:
        """Name it, for records."""

    def send(self, file: Path) -> None:
        """Deliver a file, or raise `DeliveryError`."""


@dataclass
class Processing:
    """Segments series and delivers results."""

    segmenter: Segmenter
    targets: Sequence[Target]
    parts: Sequence[str] = USUAL
    codes: Mapping[str, str] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    """What is asked of the model: members, steps, seed."""
    noted: Callable[[str], None] = log.info

    def __post_init__(self) -> None:
        self._failures: dict[str, tuple[int, float]] = {}

    def do(self, series: Series) -> bool:
        """Do what is to be done of a series: whether it has ended. What can't be delivered now waits for another time.

        What is said names the series by its UID, and nothing that its images tell: the reason why a series failed is in
        its folder.
        """
        if self._failures.get(series.uid, (0, 0.0))[1] > time.monotonic():
            return False
        images = series.images
        try:
            if series.made is None and not self._segmented(series, images):
                return True
            self._delivered(series)
        except DeliveryError as error:
            count = self._failures.get(series.uid, (0, 0.0))[0]
            pause = PAUSES[min(count, len(PAUSES) - 1)]
            self._failures[series.uid] = count + 1, time.monotonic() + pause
            self.noted(f"Series {series.uid}: {error} The next attempt is in {pause:g} s.")
            return False
        self._failures.pop(series.uid, None)
        series.end("delivered", images)
        return True

    def _segmented(self, series: Series, images: tuple[str, ...]) -> bool:
        start = time.monotonic()
        if not series.begin(images):
            self._give_up(series, images, "The program died twice while it segmented this series.")
            return False
        error = ""
        try:
            finished = segment_files(
                self.segmenter, _cases(series), series.results, parts=self.parts, codes=self.codes, **self.options
            )
            if not sendable(series.results, tuple(SENT)):
                reasons = [*finished.failed.values(), "It is no image to which DICOM objects can refer."]
                error = reasons[0]
        except MedSegDiffError as wrong:
            error = str(wrong)
        except (KeyboardInterrupt, SystemExit):  # somebody stops the program: it did not die of this
            series.forget_attempt()
            raise
        if error:
            self._give_up(series, images, error)
            return False
        series.finish(images)
        self.noted(f"Series {series.uid}: {len(images)} images segmented in {time.monotonic() - start:.1f} s.")
        return True

    def _delivered(self, series: Series) -> None:
        made = series.made
        for target in self.targets:
            sent = []
            for file in sendable(series.results, tuple(SENT)):
                what = f"{file.relative_to(series.results).as_posix()} to {target}"
                if made is not None and what in made.delivered:
                    continue
                target.send(file)
                series.deliver(what)
                sent.append(SENT[file.parent.name])
            if sent:
                self.noted(f"Series {series.uid}: {', '.join(sent)} delivered to {target}.")

    def _give_up(self, series: Series, images: tuple[str, ...], why: str) -> None:
        series.end("failed", images, why)
        self.noted(f"Series {series.uid}: could not be segmented; the reason is in {series.folder.name}/done.json.")


def _cases(series: Series) -> list[CaseFiles]:
    """Find the images of a series: a volume, or pictures, each by itself."""
    if is_series(series.where):
        return [CaseFiles(series.uid, (series.where,))]
    return [CaseFiles(path.name, (path,)) for path in list_images(series.where).images]
