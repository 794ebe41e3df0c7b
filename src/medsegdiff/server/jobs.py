"""Jobs as folders: what is asked, what is sent, and a record of how it ended, which is made once.

``JOBS/ID/request.json`` makes a job, ``done.json`` ends it. What has the first and not the second is to be done,
whoever was killed in between. Each attempt writes into a folder of its own, and the record names the one that counts.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medsegdiff.io.atomic import claim, write_json

log = logging.getLogger(__name__)

REQUEST, DONE, INPUT, ATTEMPT = "request.json", "done.json", "input", "attempt-"
PART, GONE = ".part-", ".gone-"
"""How folders begin that are no jobs yet, or no longer."""
MOST_ATTEMPTS = 2
"""Of a job; one whose worker dies twice is given up."""


class JobOptions(BaseModel):
    """What may be asked of the model; what is left out is its default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    members: Annotated[int, Field(ge=1, le=200)] | Literal["auto"] | None = None
    candidates: Annotated[int, Field(ge=1, le=1000)] | None = None
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    sampler: str | None = None
    spacing: str | None = None
    fusion: str | None = None
    views: int | None = None
    mode: Literal["ensemble", "mean"] | None = None
    seed: int = 0


class JobRequest(BaseModel):
    """What makes a job."""

    model_config = ConfigDict(frozen=True)

    id: str
    user: str = ""
    model: str
    options: JobOptions = JobOptions()
    images: tuple[str, ...]
    """Names of files and folders in ``input/``."""
    created: float
    """Seconds since 1970."""


class Ended(BaseModel):
    """How a job has ended."""

    model_config = ConfigDict(frozen=True)

    state: Literal["done", "failed"]
    error: str = ""
    folder: str = ""
    """That holds the results."""
    cases: int = 0
    seconds: float = 0.0
    at: float = 0.0


@dataclass
class Job:
    """A job, and how far it is."""

    request: JobRequest
    folder: Path
    ended: Ended | None = None
    running: bool = False
    cancelled: bool = False
    progress: Mapping[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> Literal["queued", "running", "done", "failed"]:
        """Where it stands."""
        return self.ended.state if self.ended else "running" if self.running else "queued"

    @property
    def results(self) -> Path | None:
        """Where results are, if there are some."""
        return self.folder / self.ended.folder if self.ended and self.ended.folder else None

    @property
    def attempts(self) -> int:
        """How often it was begun."""
        return sum(1 for _ in self.folder.glob(f"{ATTEMPT}*"))

    def begin(self) -> Path:
        """Make the folder of a new attempt, so that it is counted even if its worker takes this server with it."""
        folder = self.folder / f"{ATTEMPT}{self.attempts + 1}"
        folder.mkdir()
        return folder

    def end(self, ended: Ended) -> None:
        """Record how it ended; the first one counts."""
        part = self.folder / f".{DONE}-{secrets.token_hex(4)}"
        try:
            write_json(part, ended.model_dump())
            if not claim(part, self.folder / DONE):
                ended = Ended.model_validate_json((self.folder / DONE).read_text(encoding="utf-8"))
        finally:
            part.unlink(missing_ok=True)
        self.ended, self.running = ended, False
        for attempt in self.folder.glob(f"{ATTEMPT}*"):
            if attempt.name != ended.folder:
                shutil.rmtree(attempt, ignore_errors=True)


class JobFolder:
    """All jobs of a server."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.jobs: dict[str, Job] = {}
        for left in (*root.glob(f"{PART}*"), *root.glob(f"{GONE}*")):
            shutil.rmtree(left, ignore_errors=True)
        for job in sorted(self._stored(), key=lambda job: job.request.created):
            self.jobs[job.request.id] = job

    def begin(self) -> tuple[str, Path]:
        """Make a folder for a job that is being sent: its future name, and where."""
        name = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(8)}"
        folder = self.root / f"{PART}{name}"
        (folder / INPUT).mkdir(parents=True)
        return name, folder

    def add(self, request: JobRequest, folder: Path) -> Job:
        """Make a job of a folder whose files are all there."""
        write_json(folder / REQUEST, request.model_dump())
        whole = self.root / request.id
        folder.rename(whole)
        self.jobs[request.id] = Job(request, whole)
        return self.jobs[request.id]

    @property
    def all(self) -> list[Job]:
        """The jobs in the order in which they came; a list of its own, since other threads remove some meanwhile."""
        return list(self.jobs.values())

    def waiting(self) -> list[Job]:
        """List jobs that are to be done, in the order in which they came."""
        return [job for job in self.all if job.state == "queued" and not job.cancelled]

    def remove(self, job: Job) -> None:
        """Remove a job and all of its files."""
        job.cancelled = True
        self.jobs.pop(job.request.id, None)
        gone = self.root / f"{GONE}{job.request.id}"
        try:
            job.folder.rename(gone)
        except OSError:
            gone = job.folder
        shutil.rmtree(gone, ignore_errors=True)

    def without_places(self, words: str) -> str:
        """Leave out where files lie on this machine, which is nobody's business."""
        return re.sub(rf"{re.escape(str(self.root))}/[^/\s]+/(?:{INPUT}/)?", "", words)

    def sweep(self, keep: float) -> None:
        """Remove jobs that ended long ago."""
        now = time.time()
        for job in [job for job in self.all if job.ended and now - job.ended.at > keep]:
            self.remove(job)

    def _stored(self) -> Iterator[Job]:
        for folder in self.root.iterdir():
            if folder.name.startswith(".") or not (folder / REQUEST).is_file():
                continue
            try:
                request = JobRequest.model_validate_json((folder / REQUEST).read_text(encoding="utf-8"))
                ended = _record_of(folder / DONE)
            except (ValidationError, json.JSONDecodeError, OSError):
                log.warning("The job in %s can't be read and is left alone.", folder.name)
                continue
            yield Job(request, folder, ended)


def _record_of(done: Path) -> Ended | None:
    """Read how a job ended; an empty record is of a server that was killed while it wrote: see `claim`."""
    if not done.is_file():
        return None
    if text := done.read_text(encoding="utf-8"):
        return Ended.model_validate_json(text)
    done.unlink()
    return None
