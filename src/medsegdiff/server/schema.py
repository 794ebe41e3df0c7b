"""What the page and other programs are told of results, as JSON; addresses are relative to those of the results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

from medsegdiff.inference.record import ImageRecord
from medsegdiff.server.jobs import JobOptions
from medsegdiff.types import Task


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True)


class StructureShown(_Told):
    """A structure that masks hold."""

    name: str
    colour: str
    """``#rrggbb``."""
    value: int | None
    """In label maps; ``None`` for regions that have files of their own."""


class CaseListed(_Told):
    """A case in the list of all."""

    name: str
    review: bool | None = None
    """Whether a human must look; ``None``: the run was not calibrated."""
    predicted_dice: float | None = None
    """Of its worst structure."""
    trust: float | None = None
    """Of that which is trusted least: by it the worst are found."""
    agreement: float | None = None
    """Mean Dice of pairs of members."""


class MasksShown(_Told):
    """Where the masks of a case lie: in a label map, or in a file for each structure."""

    labels: str | None = None
    structures: Mapping[str, str] = {}


class Download(_Told):
    """A file to take away."""

    what: str
    href: str
    file: str
    """What it is called."""


class CaseShown(_Told):
    """All that there is to see of a case."""

    name: str
    kind: Literal["picture", "volume"]
    shape: tuple[int, ...]
    """In the order of the axes of the arrays: (h, w), or (i, j, k) of the file."""
    pixel: float
    """Size of a pixel or voxel, in ``unit``."""
    unit: Literal["px", "mm2", "mL"]
    image: str | None = None
    channels: int = 1
    """Of the image; each is at ``image?channel=…``, but for three of a picture, which are its colours."""
    fused: MasksShown
    anchor: MasksShown | None = None
    members: tuple[MasksShown, ...] = ()
    reference: MasksShown | None = None
    """Masks that somebody has corrected."""
    probability: Mapping[str, str] = {}
    """By structure."""
    uncertainty: str | None = None
    absent: Mapping[str, str] = {}
    """What is not there, and what would write it."""
    facts: ImageRecord
    downloads: tuple[Download, ...] = ()
    command: str = ""
    """What makes these results again."""


class ResultsShown(_Told):
    """What there is in a folder of results."""

    title: str
    task: Task
    structures: tuple[StructureShown, ...]
    model: str
    """Runs that segmented, by the names under which they were packed, or those of their folders."""
    made: str
    """How, in words."""
    cases: tuple[CaseListed, ...]
    failed: Mapping[str, str] = {}
    """File → why there is nothing of it."""


class About(_Told):
    """What answers."""

    name: str = "medsegdiff"
    version: str
    mode: Literal["view", "serve"]
    notice: str = "Research software, not a medical device. A person has to check what it says."


class ModelShown(_Told):
    """A model that jobs may name."""

    name: str
    network: str
    structures: tuple[str, ...]
    channels: int
    volumes: bool
    """Whether it was trained on volumes."""
    members: int
    steps: int
    sampler: str
    fusion: str
    image_size: int | None
    seconds: float
    """That a job takes, about."""


class JobShown(_Told):
    """A job, and how far it is."""

    id: str
    state: Literal["queued", "running", "done", "failed"]
    model: str
    options: JobOptions
    images: tuple[str, ...]
    created: float
    position: int | None = None
    """Jobs that come before it, while it waits."""
    done: int = 0
    total: int = 0
    """Steps, where they are known."""
    eta_s: float | None = None
    seconds: float | None = None
    error: str = ""
    cases: int = 0
    results: str | None = None
    """Address, below ``/api/v1/``."""
    expires: float | None = None
