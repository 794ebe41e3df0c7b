"""Hands jobs to workers, one process for each device, and takes back those of workers that died."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from medsegdiff.io.atomic import is_full
from medsegdiff.server.jobs import MOST_ATTEMPTS, Ended, Job, JobFolder
from medsegdiff.server.limits import Limits
from medsegdiff.server.measured import Measured

log = logging.getLogger(__name__)

PROGRAM = (sys.executable, "-m", "medsegdiff.server.worker")
PAUSE, LONG_PAUSE = 1.0, 30.0
"""Seconds before a worker that died is started anew; the long one if it could not load the models."""
MOST_RESTARTS = 3
"""Of the server during a job."""
SWEEP = 20.0
"""Seconds between two looks for jobs that ended long ago."""
LONGEST = 1 << 20
"""Bytes of a line of a worker."""
GUESS = 30.0
"""Seconds that a job is thought to take before one has ended."""
GARBLED = "The server could not understand its worker. Send the images one by one to find the one that does this."
DIED = "The worker died twice while doing this, perhaps for want of memory. Send a smaller image, or fewer members."


@dataclass(frozen=True)
class Model:
    """What jobs may name."""

    name: str
    runs: tuple[str, ...]
    """Folders; several segment together."""


@dataclass
class Dispatch:
    """The queue and its workers."""

    jobs: JobFolder
    models: Sequence[Model]
    devices: Sequence[str]
    limits: Limits
    measured: Measured = field(default_factory=Measured)
    program: Sequence[str] = PROGRAM
    swept: list[Callable[[], object]] = field(default_factory=list)
    """Removes what lies beside jobs and is kept as long."""
    error: str = ""
    """Why there is no worker, if models can't be loaded."""

    def __post_init__(self) -> None:
        self.ready: set[str] = set()
        self._new = asyncio.Condition()
        self._seconds: deque[float] = deque(maxlen=20)
        self._processes: dict[str, Process] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Dispatch:
        self._tasks = [asyncio.create_task(self._attend(device)) for device in self.devices]
        self._tasks.append(asyncio.create_task(self._sweep()))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for process in self._processes.values():
            if process.returncode is None:
                process.kill()
                await process.wait()

    @property
    def each(self) -> float:
        """Seconds that a job takes."""
        return sum(self._seconds) / len(self._seconds) if self._seconds else GUESS

    @property
    def full(self) -> bool:
        """Whether no more jobs may wait."""
        return len(self.jobs.waiting()) >= self.limits.queue

    def eta(self, job: Job, *, before: int) -> float | None:
        """Say how many seconds are left, as far as that is known; ``before``: jobs that come earlier."""
        if job.state == "running":
            done, total = job.progress.get("done", 0), job.progress.get("total", 0)
            gone = time.monotonic() - job.progress.get("since", time.monotonic())
            return gone * (total - done) / done if done and total else max(self.each - gone, 0)
        if job.state == "queued":
            return self.each * (1 + before / max(1, len(self.devices)))
        return None

    async def added(self) -> None:
        """Tell workers that there is a new job."""
        async with self._new:
            self._new.notify()

    async def remove(self, job: Job) -> None:
        """Remove a job; the worker that does it hears of it at its next step."""
        running = job.running
        job.cancelled = True
        if running and (process := self._processes.get(job.progress.get("device", ""))):
            _tell(process, {"cancel": True})
        await asyncio.to_thread(self.jobs.remove, job)

    async def _attend(self, device: str) -> None:
        """Keep a worker at a device alive, whatever goes wrong."""
        while True:
            try:
                await self._employ(device)
                why = "has ended"
            except Exception as error:  # noqa: BLE001 - the next job is not to suffer; the words may hold names
                why = f"is lost ({type(error).__name__})"
            log.warning("The worker at %s %s and is started anew.", device or "the best device", why)
            await asyncio.sleep(LONG_PAUSE if self.error else PAUSE)

    async def _employ(self, device: str) -> None:
        """Start a worker, and give it jobs as long as it lives."""
        process = await asyncio.create_subprocess_exec(
            *self.program, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, limit=LONGEST
        )
        self._processes[device] = process
        _tell(process, {"models": [(model.name, model.runs) for model in self.models], "device": device})
        try:
            await self._work(process, device)
        finally:
            self.ready.discard(device)
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def _work(self, process: Process, device: str) -> None:
        """Give jobs to a worker, until it dies."""
        first = await _heard(process)
        if first is None or first["event"] != "ready":
            self.error = "The worker died while it loaded models." if first is None else first["error"]
            return
        self.error = ""
        self.ready.add(device)
        while process.returncode is None:
            job = await self._next()
            try:
                if not await self._do(job, process, device):
                    return
            except Exception:  # a line that is too long, or no JSON
                self._end(job, Ended(state="failed", error=GARBLED, at=time.time()))
                raise

    async def _next(self) -> Job:
        async with self._new:
            while not (waiting := self.jobs.waiting()):
                await self._new.wait()
            waiting[0].running = True
            return waiting[0]

    async def _do(self, job: Job, process: Process, device: str) -> bool:
        """Have a job done: whether the worker has survived it."""
        start = time.monotonic()
        if await asyncio.to_thread(lambda: job.attempts) > MOST_ATTEMPTS + MOST_RESTARTS:
            self._end(job, Ended(state="failed", error=DIED, at=time.time()))
            return True
        try:
            attempt = await asyncio.to_thread(job.begin)
        except OSError as error:  # a full disk, or the job is gone
            self._end(
                job, Ended(state="failed", error=f"The server could not begin ({error.strerror}).", at=time.time())
            )
            return True
        job.progress = {"done": 0, "total": 0, "since": start, "device": device}
        _tell(process, {"job": str(job.folder), "attempt": attempt.name})
        while (heard := await _heard(process)) is not None:
            if heard["event"] == "progress":
                job.progress = {**job.progress, "done": heard["done"], "total": heard["total"]}
                continue
            self._finish(job, heard, attempt.name, time.monotonic() - start)
            return True
        job.running = False
        if not job.cancelled and await asyncio.to_thread(lambda: job.attempts) >= MOST_ATTEMPTS:
            self._end(job, Ended(state="failed", error=DIED, at=time.time()))
        return False

    def _finish(self, job: Job, heard: dict[str, Any], folder: str, seconds: float) -> None:
        if heard["event"] == "done":
            self._seconds.append(seconds)
            told = {"state": "done", "folder": folder, "cases": heard["cases"], "seconds": seconds, "at": time.time()}
            self._end(job, Ended.model_validate(told))
        else:
            why = self.jobs.without_places(heard.get("error", ""))
            self._end(job, Ended(state="failed", error=why, seconds=seconds, at=time.time()))

    def _end(self, job: Job, ended: Ended) -> None:
        job.running = False
        if job.cancelled:
            return
        try:
            job.end(ended)
        except Exception as error:  # noqa: BLE001 - its folder is gone, the disk is full: it will be done again
            why = getattr(error, "strerror", None) or type(error).__name__
            log.warning("Job %s could not be recorded (%s).", job.request.id, why)
            told = "The disk is full." if is_full(error) else f"How it ended could not be recorded ({why})."
            job.ended = ended.model_copy(update={"state": "failed", "folder": "", "error": told})
        self.measured.ended(ended.state, ended.seconds)

    async def _sweep(self) -> None:
        """Remove again and again what is kept no longer, even if that has failed before."""
        sweeps: list[Callable[[], object]] = [partial(self.jobs.sweep, self.limits.keep), *self.swept]
        while True:
            await asyncio.sleep(SWEEP)
            for sweep in sweeps:
                try:
                    await asyncio.to_thread(sweep)
                except Exception as error:  # noqa: BLE001 - the words may hold names
                    log.warning("What is old could not be removed (%s).", type(error).__name__)


def _tell(process: Process, order: dict[str, Any]) -> None:
    if process.stdin is not None and not process.stdin.is_closing():
        process.stdin.write(json.dumps(order).encode() + b"\n")


async def _heard(process: Process) -> dict[str, Any] | None:
    """Wait for a line of a worker; nothing from one that died."""
    assert process.stdout is not None
    line = await process.stdout.readline()
    return json.loads(line) if line.endswith(b"\n") else None
