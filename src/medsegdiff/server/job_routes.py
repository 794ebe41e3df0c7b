"""Models and jobs: what there is, sending, watching, removing."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Form, Request, Response, UploadFile
from fastapi.routing import APIRoute
from pydantic import ValidationError
from sse_starlette import EventSourceResponse, ServerSentEvent

from medsegdiff.diffusion.samplers import SAMPLERS
from medsegdiff.errors import ConfigError
from medsegdiff.inference.request import Request as Asked
from medsegdiff.models.checkpoint import load_config
from medsegdiff.server.dispatch import Dispatch, Model
from medsegdiff.server.gate import check_room
from medsegdiff.server.jobs import INPUT, Job, JobOptions, JobRequest
from medsegdiff.server.problems import Problem, Refusal
from medsegdiff.server.schema import JobShown, ModelShown
from medsegdiff.server.uploads import Given, receive, remove


class ManyFiles(Request):
    """A request whose form may hold as many files as the server takes, and one more, so that it is told in words."""

    def form(self, *, max_files: float = 0, **limits: Any) -> Any:
        """Read the form."""
        most = max(max_files, self.app.state.dispatch.limits.files + 1)
        return super().form(max_files=most, **limits)


class FormRoute(APIRoute):
    """An address to which many files may be sent at once."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Read forms as `ManyFiles` does."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            return await handle(ManyFiles(request.scope, request.receive))

        return answer


router = APIRouter(tags=["jobs"], route_class=FormRoute)
LOOK = 0.25
"""Seconds between two looks at a job that somebody watches."""


def dispatch_of(request: Request) -> Dispatch:
    """Find the queue."""
    found: Dispatch = request.app.state.dispatch
    return found


def user_of(request: Request) -> str:
    """Tell who asks."""
    return str(request.state.user)


Queue = Annotated[Dispatch, Depends(dispatch_of)]
User = Annotated[str, Depends(user_of)]


def job_of(job: str, queue: Queue, user: User) -> Job:
    """Find a job of a user; those of others are not there."""
    found = queue.jobs.jobs.get(job)
    if found is None or found.request.user != user:
        raise Refusal(404, "There is no such job. It may have been removed.")
    return found


Known = Annotated[Job, Depends(job_of)]
MISSING: dict[int | str, dict[str, Any]] = {404: {"model": Problem}}


def shown(job: Job, queue: Dispatch) -> JobShown:
    """Tell how far a job is."""
    return all_shown([job], queue)[0]


def all_shown(jobs: Iterable[Job], queue: Dispatch) -> list[JobShown]:
    """Tell how far jobs are; the queue is looked at once."""
    places = {job.request.id: place for place, job in enumerate(queue.jobs.waiting())}
    return [_shown(job, queue, places.get(job.request.id, 0)) for job in jobs]


def _shown(job: Job, queue: Dispatch, before: int) -> JobShown:
    asked, ended = job.request, job.ended
    eta = queue.eta(job, before=before)
    return JobShown(
        id=asked.id,
        state=job.state,
        model=asked.model,
        options=asked.options,
        images=asked.images,
        created=asked.created,
        position=before if job.state == "queued" else None,
        done=int(job.progress.get("done", 0)),
        total=int(job.progress.get("total", 0)),
        eta_s=None if eta is None else round(eta, 1),
        seconds=ended.seconds if ended else None,
        error=ended.error if ended else "",
        cases=ended.cases if ended else 0,
        results=f"jobs/{asked.id}/results/" if job.results else None,
        expires=ended.at + queue.limits.keep if ended else None,
    )


@router.get("/models")
def models(queue: Queue) -> list[ModelShown]:
    """List the models that jobs may name."""
    return [_model(model, queue) for model in queue.models]


def _model(model: Model, queue: Dispatch) -> ModelShown:
    config = load_config(Path(model.runs[0]))
    spec, sampling = config.spec, config.sampling
    return ModelShown(
        name=model.name,
        network=config.model.name,
        structures=spec.labels.structures,
        channels=spec.channels,
        volumes=bool(spec.plane),
        members=sampling.members,
        steps=sampling.steps,
        sampler=sampling.sampler,
        fusion=sampling.fusion,
        image_size=config.data.image_size,
        seconds=round(queue.each, 1),
    )


@router.get("/jobs")
async def jobs(queue: Queue, user: User) -> list[JobShown]:
    """List the jobs of the user, the newest first."""
    mine = [job for job in queue.jobs.all if job.request.user == user]
    return all_shown(reversed(mine), queue)


WHY = {
    400: "The form can't be read.",
    413: "Too large: bytes, files or voxels.",
    415: "Nothing in it is an image that can be read.",
    422: "An image is damaged, or an option makes no sense.",
    429: "Too many jobs wait; see Retry-After.",
    503: "There is no worker, or no room on the disk; see Retry-After.",
}


@router.post(
    "/jobs",
    status_code=202,
    responses={status: {"model": Problem, "description": why} for status, why in WHY.items()},
)
async def send(
    response: Response,
    queue: Queue,
    user: User,
    files: Annotated[list[UploadFile], File(description="Pictures, NIfTI, slices of a DICOM series, ZIP of these.")],
    model: Annotated[str, Form(description="Name of a model; empty: the first.")] = "",
    options: Annotated[str, Form(description="JSON object: members, steps, sampler, fusion, seed, …")] = "{}",
) -> JobShown:
    """Send images to be segmented. The answer's ``Location`` is where the job is watched."""
    chosen, asked = choose(queue, model), read_options(options)
    await asyncio.to_thread(check_options, chosen, asked)
    job = await accept(queue, user, chosen, asked, [(file.filename or "image", file.file) for file in files])
    response.headers["Location"] = f"/api/v1/jobs/{job.request.id}"
    return shown(job, queue)


def choose(queue: Dispatch, name: str) -> Model:
    """Find a model by its name."""
    found = [model for model in queue.models if model.name == name] if name else list(queue.models[:1])
    if not found:
        known = ", ".join(model.name for model in queue.models)
        raise Refusal(422, f"There is no model '{name}'; there are {known}.")
    return found[0]


def read_options(text: str) -> JobOptions:
    """Read what is asked of a model."""
    try:
        return JobOptions.model_validate_json(text or "{}")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        known = ", ".join(JobOptions.model_fields)
        raise Refusal(422, f"options: {where}: {first['msg']}. Allowed is a JSON object with {known}.") from error


def check_options(model: Model, options: JobOptions) -> None:
    """Refuse what the model can't do, before it waits."""
    configs = [load_config(Path(run)) for run in model.runs]
    try:
        asked = Asked.of(*configs, **options.model_dump(exclude_none=True))
        SAMPLERS[asked.sampling.sampler]  # an unknown name is refused now, not after it has waited
    except (ConfigError, KeyError) as error:
        raise Refusal(422, str(error)) from error


async def accept(queue: Dispatch, user: str, model: Model, options: JobOptions, files: Iterable[Given]) -> Job:
    """Make a job of what was sent."""
    name, folder = await asyncio.to_thread(queue.jobs.begin)
    try:
        images = await asyncio.to_thread(receive, files, folder / INPUT, queue.limits)
        check_room(queue)  # others may have come meanwhile
        names = tuple(image.name for image in images)
        request = JobRequest(id=name, user=user, model=model.name, options=options, images=names, created=time.time())
        job = queue.jobs.add(request, folder)
    except BaseException:
        await asyncio.to_thread(remove, folder)
        raise
    await queue.added()
    return job


@router.get("/jobs/{job}", responses=MISSING)
async def watch(found: Known, queue: Queue) -> JobShown:
    """Tell how far a job is."""
    return shown(found, queue)


@router.delete("/jobs/{job}", status_code=204, responses=MISSING)
async def delete(found: Known, queue: Queue) -> None:
    """Stop a job, and remove it with all of its files."""
    await queue.remove(found)


@router.get("/jobs/{job}/events", response_class=EventSourceResponse, responses=MISSING)
async def events(found: Known, queue: Queue) -> EventSourceResponse:
    """Tell how far a job is whenever that changes (server-sent events), until it has ended."""

    async def told() -> AsyncIterator[ServerSentEvent]:
        last = ""
        while not found.cancelled:
            now = shown(found, queue)
            text = json.dumps(now.model_dump(mode="json", exclude={"eta_s"}))
            if text != last:
                last = text
                yield ServerSentEvent(now.model_dump_json(), event="progress")
            if found.ended:
                return
            await asyncio.sleep(LOOK)

    return EventSourceResponse(told())
