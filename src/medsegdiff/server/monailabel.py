"""The interface of MONAI Label, so that its plug-ins for 3D Slicer, MITK and others work with this server unchanged.

Source: the routes and answers of MONAI Label 0.8.5 (Apache-2.0); what is behind them are the jobs of this server.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, Request, Response, UploadFile
from fastapi.responses import FileResponse

from medsegdiff.errors import DataError
from medsegdiff.models.checkpoint import load_config
from medsegdiff.server.datastore import Sessions
from medsegdiff.server.dispatch import Dispatch, Model
from medsegdiff.server.job_routes import LOOK, WHY, FormRoute, Queue, User, accept, check_options, choose
from medsegdiff.server.jobs import Job, JobOptions
from medsegdiff.server.monailabel_store import STRATEGIES, ending_of, store_of
from medsegdiff.server.nrrd import TYPES, nrrd_of
from medsegdiff.server.pacs.archive import Archive
from medsegdiff.server.pacs.peers import DeliveryError
from medsegdiff.server.problems import Problem, Refusal
from medsegdiff.server.result_routes import results_of
from medsegdiff.server.results import Results
from medsegdiff.server.uploads import Given, receive, remove

router = APIRouter(route_class=FormRoute, tags=["MONAI Label"], responses={404: {"model": Problem}})
GUARDED = ("/info", "/session", "/infer", "/activelearning", "/datastore")
"""Beginnings of the addresses below."""


def sessions_of(request: Request) -> Sessions:
    """Find the images that were sent."""
    found: Sessions = request.app.state.sessions
    return found


@router.get("/info/")
def info(request: Request, queue: Queue) -> dict[str, Any]:
    """Tell what there is: models, strategies, images."""
    models = {model.name: _model(model) for model in queue.models}
    labels = dict.fromkeys(name for model in models.values() for name in model["labels"])
    return {
        "name": "medsegdiff",
        "description": "MedSegDiff-V2, with uncertainty. Research software, not a medical device.",
        "version": version("medsegdiff"),
        "labels": list(labels),
        "models": models,
        "trainers": {},
        "strategies": {name: {"description": what} for name, what in STRATEGIES.items()},
        "scoring": {},
        "train_stats": {},
        "datastore": store_of(request).status(),
    }


def _model(model: Model) -> dict[str, Any]:
    spec = load_config(Path(model.runs[0])).spec
    labels = spec.labels
    values = labels.label_values or range(1, 1 + len(labels.structures))
    return {
        "type": "segmentation",
        "labels": dict(zip(labels.structures, values, strict=True)),
        "dimension": 3 if spec.plane else 2,
        "description": f"{model.name}: members, their fusion and its uncertainty",
        "config": {"members": 0, "steps": 0, "seed": 0},
    }


@router.put("/session/", responses={status: {"model": Problem} for status in (413, 415, 422)})
async def open_session(
    request: Request, queue: Queue, user: User, files: Annotated[list[UploadFile], File()]
) -> dict[str, Any]:
    """Send an image once, for several questions."""
    sessions = sessions_of(request)
    name, folder = await asyncio.to_thread(sessions.begin)
    try:
        sent = [(file.filename or "image.nii.gz", file.file) for file in files]
        images = await asyncio.to_thread(receive, sent, folder, queue.limits)
    except BaseException:
        await asyncio.to_thread(remove, folder)
        raise
    sessions.add(name, user, images)
    return {"session_id": name, "session_info": _session(name, images, sessions)}


@router.get("/session/{session_id}", response_model=None)
def session(request: Request, user: User, session_id: str, image: bool = False) -> dict[str, Any] | FileResponse:
    """Tell of an image that was sent, or give it back."""
    images = sessions_of(request).images(session_id, user)
    if image and images[0].is_file():
        return FileResponse(images[0], filename=images[0].name)
    return _session(session_id, images, sessions_of(request))


@router.delete("/session/{session_id}")
def close_session(request: Request, user: User, session_id: str) -> dict[str, Any]:
    """Forget an image that was sent."""
    sessions = sessions_of(request)
    told = _session(session_id, sessions.images(session_id, user), sessions)
    sessions.remove(session_id)
    return told


def _session(name: str, images: Sequence[Path], sessions: Sessions) -> dict[str, Any]:
    return {"name": name, "image": images[0].name, "meta": {}, "expiry": int(sessions.keep)}


REFUSED: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": why} for status, why in WHY.items()
}


@router.post("/infer/{model}", response_class=Response, responses=REFUSED)
async def infer(
    request: Request,
    queue: Queue,
    user: User,
    model: str,
    image: str = "",
    session_id: str = "",
    output: Literal["all", "image", "json", "dicom_seg"] | None = None,
    params: Annotated[str, Form(description="JSON: members, steps, seed; what else there is, is passed over.")] = "{}",
    file: Annotated[UploadFile | None, File()] = None,
) -> Response:
    """Segment an image: one that is sent, that of a session, one of the folder ``--data``, or a series of an archive.

    Of an archive (``--dicomweb``) ``image`` is the SeriesInstanceUID, as OHIF has it.
    """
    chosen, options, nrrd = choose(queue, model), _options(params), _kind(params)
    await asyncio.to_thread(check_options, chosen, options)
    archive: Archive | None = request.app.state.archive
    if file is not None:
        sent = [(file.filename or "image.nii.gz", file.file)]
        job = await accept(queue, user, chosen, options, sent)
    elif archive is not None and image and not session_id and image not in store_of(request).cases:
        job = await _accept_series(archive, image, queue, user, chosen, options)
    else:
        paths = sessions_of(request).images(session_id, user) if session_id else _stored(request, image)
        job = await accept(queue, user, chosen, options, _opened(paths))
    async with _followed(job, queue, request):
        results = await asyncio.to_thread(results_of, job)
        return await asyncio.to_thread(_answer, results, output, nrrd)


async def _accept_series(
    archive: Archive, series: str, queue: Dispatch, user: str, model: Model, options: JobOptions
) -> Job:
    """Fetch a series as if it had been sent."""
    try:
        found = await asyncio.to_thread(archive.find, series)
        files = ((f"{series}/{image}.dcm", BytesIO(content)) for image, content in archive.images(found))
        return await accept(queue, user, model, options, files)
    except DeliveryError as error:
        raise Refusal(502, str(error)) from error
    except DataError as error:
        raise Refusal(404, str(error)) from error


def _kind(params: str) -> str:
    """Tell as which numbers of an NRRD labels are wanted, where they are; the form was looked at before."""
    given = json.loads(params or "{}")
    if given.get("result_extension") != ".nrrd":
        return ""
    kind = str(given.get("result_dtype") or "uint16")
    if kind not in TYPES:
        raise Refusal(422, f"params: result_dtype is {kind}; allowed are {', '.join(TYPES)}.")
    return kind


def _options(params: str) -> JobOptions:
    """Take what is meant for the model; viewers send much else."""
    try:
        given = json.loads(params or "{}")
        known = {name: value for name, value in given.items() if name in JobOptions.model_fields and value}
        return JobOptions.model_validate(known)
    except (ValueError, AttributeError) as error:
        raise Refusal(422, f"params: expected is a JSON object ({error}).") from error


def _stored(request: Request, image: str) -> Sequence[Path]:
    if not image:
        raise Refusal(422, "There is no image: send a file, or name a session_id or an image.")
    return store_of(request).image(image).images


def _opened(paths: Sequence[Path]) -> Iterator[Given]:
    """Open files, and the slices of series, as if they had been sent: one after the other, as there may be many."""
    for path in paths:
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            name = f"{path.name}/{file.name}" if path.is_dir() else file.name
            with file.open("rb") as source:
                yield name, source


@asynccontextmanager
async def _followed(job: Job, queue: Dispatch, request: Request) -> AsyncIterator[None]:
    """Wait for a job; nobody wants it any more once its asker has gone, or has the answer."""
    try:
        while job.ended is None:
            if await request.is_disconnected():
                raise Refusal(503, "Nobody waits for the answer.")
            await asyncio.sleep(LOOK)
        if job.results is None:
            raise Refusal(422, job.ended.error)
        yield
    finally:
        await queue.remove(job)


def _answer(results: Results, output: str | None, nrrd: str) -> Response:
    """Give mask and facts, in one answer of several parts unless one is asked for; volumes as NRRD for OHIF."""
    name = results.record.images[0].name
    case, masks = results.case(name), results.places.masks(name)
    facts = case.facts.model_dump(mode="json")
    labels = {structure.name: structure.value for structure in results.shown().structures}
    told = json.dumps({"label_names": labels, "latencies": {}, **facts}).encode()
    if output == "json":
        return Response(told, media_type="application/json")
    if output == "dicom_seg":
        file = results.root / "dicom-seg" / f"{name}.dcm"
        if not file.is_file():
            raise Refusal(422, "There is no DICOM-SEG of what was sent: it is no DICOM series.")
        return Response(file.read_bytes(), media_type="application/dicom")
    if "" not in masks:
        raise Refusal(422, "The structures of this model overlap, which no label map can hold. Ask with output=json.")
    file = masks[""]
    as_nrrd = nrrd and ending_of(file).startswith(".nii")
    content, name = (nrrd_of(file, nrrd), "label.nrrd") if as_nrrd else (file.read_bytes(), f"label{ending_of(file)}")
    if output == "image":
        kind = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(content, media_type="application/octet-stream", headers=kind)
    return _in_parts(told, content, name)


def _in_parts(told: bytes, content: bytes, name: str) -> Response:
    mark = secrets.token_hex(16)
    shown = f'form-data; name="image"; filename="{name}"'
    body = b"".join(
        [
            f'--{mark}\r\nContent-Disposition: form-data; name="params"\r\n'.encode(),
            b"Content-Type: application/json\r\n\r\n",
            told,
            f"\r\n--{mark}\r\nContent-Disposition: {shown}\r\nContent-Type: application/octet-stream\r\n\r\n".encode(),
            content,
            f"\r\n--{mark}--\r\n".encode(),
        ]
    )
    return Response(body, media_type=f"multipart/form-data; boundary={mark}")
