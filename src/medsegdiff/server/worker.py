"""A worker: a process that holds the models and does one job after the other, as it is told on its input.

It reads a JSON object a line, and answers with some. It writes nothing else anywhere: names of files are names of
patients. When nobody tells it anything any more, it ends, whatever it is doing: another one does the job again.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from medsegdiff.errors import ConfigError, MedSegDiffError, some
from medsegdiff.io.atomic import is_full
from medsegdiff.server.jobs import INPUT, REQUEST, JobRequest

FURTHER = ("members", "rtstruct", "dicom-sr", "geojson")
"""What is written beside what ``segment`` writes unasked; maps as DICOM would take much room."""
EVERY = 0.2
"""Seconds between two words of progress."""
MOST_REASONS = 5
"""Of images that failed, that are told; an archive may hold thousands."""
LONGEST = 4000
"""Letters of an error that are told."""


class Cancelled(BaseException):
    """Nobody wants the job any more; no handler of errors may take it for one."""


class Worker:
    """Does jobs with models."""

    def __init__(self, said: Callable[[str], object]) -> None:
        self.said, self.cancel = said, threading.Event()
        self.orders: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self.done = self.total = 0
        self.last = 0.0

    def listen(self, lines: Iterable[str]) -> None:
        """Take orders; when there are no more, everything ends."""
        for line in lines:
            order = json.loads(line)
            if "cancel" in order:
                self.cancel.set()
            else:
                self.orders.put(order)
        os._exit(0)

    def say(self, **facts: Any) -> None:
        """Tell the server something."""
        self.said(json.dumps(facts))

    def run(self, models: Sequence[tuple[str, Sequence[str]]], device: str) -> None:
        """Load models, then do what is asked for ever."""
        from medsegdiff.inference.segmenter import Segmenter

        try:
            segmenters = {name: Segmenter.from_runs(runs, device=device or None) for name, runs in models}
        except Exception as error:  # noqa: BLE001 - it is told, and this process ends
            self.say(event="failed", error=_worded(error))
            return
        for segmenter in segmenters.values():
            for run in segmenter.runs:
                run.model.denoise = self._counted(run.model.denoise)  # type: ignore[method-assign]
        self.say(event="ready")
        while "job" in (order := self.orders.get()):
            self.cancel.clear()
            self._job(segmenters, Path(order["job"]), order["attempt"])

    def _job(self, segmenters: dict[str, Any], folder: Path, attempt: str) -> None:
        start = time.monotonic()
        try:
            request = JobRequest.model_validate_json((folder / REQUEST).read_text(encoding="utf-8"))
            if request.model not in segmenters:
                raise ConfigError(
                    f"The model '{request.model}' is not served any more; there are {some([*segmenters])}. Send the "
                    "images to one of them, or start the server with it and send them again."
                )
            cases, failed = self._segment(segmenters[request.model], request, folder, folder / attempt)
        except Cancelled:
            self.say(event="cancelled")
            return
        except Exception as error:  # noqa: BLE001 - whatever it was, the next job is not to suffer
            self.say(event="failed", error=_worded(error))
            return
        seconds = time.monotonic() - start
        if cases:
            self.say(event="done", cases=cases, seconds=seconds)
        else:
            self.say(event="failed", error=_together(failed), seconds=seconds)

    def _segment(self, segmenter: Any, request: JobRequest, folder: Path, out: Path) -> tuple[int, Sequence[str]]:
        from medsegdiff.inference.files import segment_files
        from medsegdiff.inference.inputs import find_inputs
        from medsegdiff.inference.writer import USUAL

        paths = [folder / INPUT / name for name in request.images]
        files = find_inputs(paths, like=segmenter.config, noted=_unheard)
        options = {key: value for key, value in request.options.model_dump().items() if value is not None}
        asked = segmenter.request(**options)
        each = asked.sampling.drawn * asked.sampling.steps if asked.sampling.mode == "ensemble" else 1
        self.done, self.total = 0, sum(each * slices_of(file.images[0], segmenter) for file in files)
        finished = segment_files(segmenter, files, out, parts=(*USUAL, *FURTHER), noted=_unheard, **options)
        return finished.made, list(finished.failed.values())

    def _counted(self, denoise: Callable[..., Any]) -> Callable[..., Any]:
        """Tell of each step how far the job is, and end it if nobody wants it."""

        def counted(x_t: Any, *given: Any, **named: Any) -> Any:
            if self.cancel.is_set():
                raise Cancelled
            result = denoise(x_t, *given, **named)
            self.done += len(x_t)
            now = time.monotonic()
            if now - self.last >= EVERY:
                self.last = now
                self.say(event="progress", done=min(self.done, self.total), total=self.total)
            return result

        return counted


def slices_of(image: Path, segmenter: Any) -> int:
    """Count the pictures that are segmented of an image."""
    from medsegdiff.data.slicing import Slicing
    from medsegdiff.io.image import read_geometry

    geometry, _ = read_geometry(image)
    plane: Any = segmenter.config.spec.plane or "auto"
    return len(Slicing.of(geometry, plane)) if len(geometry.shape) == 3 else 1


def _worded(error: Exception) -> str:
    if is_full(error):
        return "The server's disk is full. Send the images again later."
    return _cut(str(error) if isinstance(error, MedSegDiffError) else f"{type(error).__name__}: {error}")


def _together(failed: Sequence[str]) -> str:
    """Say why images failed: the first few reasons, and how many more there are."""
    told, left = " ".join(failed[:MOST_REASONS]), len(failed) - MOST_REASONS
    return f"{_cut(told)} And {left} more images failed." if left > 0 else _cut(told)


def _cut(words: str) -> str:
    return words if len(words) <= LONGEST else f"{words[:LONGEST]} …"


def _unheard(_: str) -> None:
    """Say nothing."""


def main() -> None:
    """Work until the input ends. The first line tells which models, and where to compute."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    logging.disable()
    asked = json.loads(sys.stdin.readline())
    worker = Worker(partial(print, file=answers, flush=True))
    threading.Thread(target=worker.listen, args=(sys.stdin,), daemon=True).start()
    worker.run(asked["models"], asked["device"])


if __name__ == "__main__":
    main()
