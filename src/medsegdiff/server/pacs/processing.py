"""What becomes of a series: it is segmented, its results are delivered, and both are recorded."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medsegdiff.data.dataset import CaseFiles
from medsegdiff.errors import MedSegDiffError
from medsegdiff.inference.files import segment_files
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.io.listing import Reason, is_series, list_images
from medsegdiff.server.pacs.delivery import SENT, Delivery, Pauses, Target
from medsegdiff.server.pacs.inbox import Series
from medsegdiff.server.pacs.peers import sendable

log = logging.getLogger(__name__)

USUAL = ("dicom-seg", "dicom-sr", "dicom-pm")
OF_THE_MACHINE = (OSError, RuntimeError, MemoryError)
"""What no series is to blame for: a full disk, a device that failed."""
NOTHING = "It is no image to which DICOM objects can refer."


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
        self._pauses = Pauses()
        self._delivery = Delivery(self.targets, self._pauses, self.noted)

    def do(self, series: Series) -> bool:
        """Do what is to be done of a series: whether it has ended. What can't be done now waits for another time.

        What is said names the series by its UID, and nothing that its images tell: the reason why a series failed is in
        its folder.
        """
        if self._pauses.wait(series.uid):
            return False
        try:
            ended = self._ended(series)
        except (KeyboardInterrupt, SystemExit):  # somebody stops the program: it did not die of this
            series.forget_attempt()
            raise
        except OF_THE_MACHINE as error:
            series.forget_attempt()
            told = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else type(error).__name__
            pause = self._pauses.begin(series.uid)
            self.noted(f"Series {series.uid}: can't be processed now ({told}). The next attempt is in {pause:g} s.")
            return False
        self._pauses.forget(series.uid)
        return ended

    def _ended(self, series: Series) -> bool:
        came, images = series.came, series.images  # what comes between the two counts as late
        why = ""
        if missing := series.missing:
            why = f"{missing} images that came earlier were removed since. Send the whole series again."
        elif series.made is None:
            why = self._segmented(series, images)
        if why:
            series.end("failed", images, why, came=came)
            self.noted(f"Series {series.uid}: could not be segmented; the reason is in {series.uid}/done.json.")
            return True
        if not self._delivery.send(series):
            return False
        self._end(series, images)
        return True

    def _segmented(self, series: Series, images: tuple[str, ...]) -> str:
        """Segment a series, or say why that is not possible."""
        start = time.monotonic()
        if not series.begin(images):
            return "The program died twice while it segmented this series."
        try:
            files, failed = self._results(series)
        except MedSegDiffError as wrong:
            return str(wrong)
        except OF_THE_MACHINE:
            raise
        except Exception as wrong:  # noqa: BLE001 - whatever a library makes of a series, the others go on
            return f"{type(wrong).__name__}."
        if not files:
            return next(iter(failed.values()), NOTHING)
        series.finish(images, files, failed)
        count = len(images) - len(failed)
        self.noted(f"Series {series.uid}: {count} images segmented in {time.monotonic() - start:.1f} s.")
        return ""

    def _results(self, series: Series) -> tuple[list[Path], dict[str, str]]:
        """Make results: files that can be sent, and images of which there are none, with the reason."""
        cases, failed = _cases(series)
        finished = segment_files(
            self.segmenter, cases, series.results, parts=self.parts, codes=self.codes, **self.options
        )
        failed |= {Path(path).name: _reason(path, told) for path, told in finished.failed.items()}
        files = sendable(series.results, tuple(SENT))
        known = {file.stem.partition("_")[0] for file in files} | {*failed}
        failed |= {case.name: NOTHING for case in cases if case.name not in known}
        return files, failed

    def _end(self, series: Series, images: tuple[str, ...]) -> None:
        failed = {} if series.made is None else series.made.failed
        error = f"{len(failed)} of {len(images)} images could not be segmented." if failed else ""
        series.end("delivered", images, error, failed=failed)
        if error:
            self.noted(f"Series {series.uid}: {error} The reasons are in {series.uid}/done.json.")


def _cases(series: Series) -> tuple[list[CaseFiles], dict[str, str]]:
    """Find the images of a series: a volume, or pictures, each by itself; and why others are none."""
    if is_series(series.where):
        return [CaseFiles(series.uid, (series.where,))], {}
    found = list_images(series.where)
    left_out = {of.path.name: f"It is {of.reason}." for of in found.left_out if of.reason != Reason.HIDDEN}
    return [CaseFiles(path.name, (path,)) for path in found.images], left_out


def _reason(path: str, told: str) -> str:
    """Leave out what a library says: it may hold what a file tells of its patient."""
    said = re.match(r"(\w+): ", told.removeprefix(f"{path}: ")) if told.startswith(f"{path}: ") else None
    return told if said is None else f"{path}: {said[1]}."
