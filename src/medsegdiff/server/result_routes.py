"""Results of a job: what there is, files, images for a browser, archives, masks that come back."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Query, Response
from fastapi.responses import FileResponse, StreamingResponse

from medsegdiff.errors import DataError
from medsegdiff.inference.inputs import find_inputs
from medsegdiff.inference.review import Quality
from medsegdiff.server.archive import zipped
from medsegdiff.server.images import image_of
from medsegdiff.server.job_routes import Known
from medsegdiff.server.jobs import INPUT
from medsegdiff.server.problems import Problem, Refusal
from medsegdiff.server.results import Results
from medsegdiff.server.schema import CaseShown, ResultsShown

router = APIRouter(tags=["results"], responses={404: {"model": Problem}, 409: {"model": Problem}})
_FILE = {"schema": {"type": "string", "format": "binary"}}
BINARY: dict[int | str, dict[str, Any]] = {200: {"content": {"application/octet-stream": _FILE}}}
ZIP: dict[int | str, dict[str, Any]] = {200: {"content": {"application/zip": _FILE}}}


def results_of(found: Known) -> Results:
    """Find the results of a job, with its images."""
    if found.results is None:
        state = found.state
        raise Refusal(409, found.ended.error if found.ended else f"The job is {state}; there are no results yet.")
    return _opened(found.results, tuple(found.folder / INPUT / name for name in found.request.images))


@lru_cache(maxsize=64)
def _opened(folder: Path, images: tuple[Path, ...]) -> Results:
    names = [image.name for image in images]
    title = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
    return Results(folder, {case.name: case for case in find_inputs(images, noted=lambda _: None)}, title)


Found = Annotated[Results, Depends(results_of)]
Case = Annotated[str, Query(alias="case", description="Needed where a job has several.")]


@router.get("/")
def index(results: Found) -> ResultsShown:
    """Tell what there is."""
    return results.shown()


@router.get("/cases/{name:path}")
def case(name: str, results: Found) -> CaseShown:
    """Tell all of a case."""
    return results.case(name)


@router.get("/files/{address:path}", response_class=FileResponse, responses=BINARY)
def file(address: str, results: Found) -> FileResponse:
    """Give a file of the results."""
    return FileResponse(results.places.given(address), media_type="application/octet-stream")


@router.get("/image/{name:path}", response_class=Response, responses=BINARY)
def image(name: str, results: Found, channel: Annotated[int, Query(ge=0)] = 0) -> Response:
    """Give an image as a browser can read it: PNG, or NIfTI."""
    body = image_of(results.image(name), channel=channel)
    if isinstance(body.content, Path):
        return FileResponse(body.content, media_type=body.type)
    return Response(body.content, media_type=body.type)


@router.get("/archive/{name:path}", response_class=StreamingResponse, responses=ZIP)
def archive(name: str, results: Found) -> StreamingResponse:
    """Give all files of a case as ZIP."""
    return StreamingResponse(zipped(results.archived(name), results.root), media_type="application/zip")


@router.get("/all.zip", response_class=StreamingResponse, responses=ZIP)
def everything(results: Found) -> StreamingResponse:
    """Give all files of all cases as ZIP, and the tables; not the records, which tell of this machine."""
    files = [path for image in results.record.images for path in results.archived(image.name)]
    files += sorted(results.root.glob("*.csv"))
    return StreamingResponse(zipped(files, results.root), media_type="application/zip")


@router.put("/references/{name:path}", responses={422: {"model": Problem}})
async def correct(
    name: str, results: Found, values: Annotated[bytes, Body(media_type="application/octet-stream")]
) -> dict[str, bool]:
    """Keep masks that somebody has corrected: a byte by pixel, in the order of the file."""
    await asyncio.to_thread(results.correct, name, values)
    return {"saved": True}


@router.get("/quality")
def quality(results: Found, case: Case = "") -> dict[str, Quality]:
    """Tell what is predicted of the masks of a case, by structure."""
    return dict(results.case(_one(results, case)).facts.quality)


@router.get("/members/{number}", response_class=FileResponse, responses=BINARY)
def member(number: int, results: Found, case: Case = "", structure: str = "") -> FileResponse:
    """Give the mask of a member, from 0."""
    members = list(results.places.members(_one(results, case)))
    if not 0 <= number < len(members):
        raise DataError(f"There is no member {number}; there are {len(members)}, from 0.")
    return _given(members[number], structure)


@router.get("/{part}", response_class=FileResponse, responses=BINARY)
def one(
    part: Literal["mask", "anchor", "reference", "probability", "uncertainty"],
    results: Found,
    case: Case = "",
    structure: Annotated[str, Query(description="Needed where each has a file of its own.")] = "",
) -> FileResponse:
    """Give one file of a case."""
    name, places = _one(results, case), results.places
    if part == "uncertainty":
        found = places.uncertainty(name)
        return _given({} if found is None else {"": found}, "")
    inside = {"mask": "", "anchor": "anchor/", "reference": "references/"}
    return _given(places.probability(name) if part == "probability" else places.masks(name, inside[part]), structure)


def _one(results: Results, name: str) -> str:
    cases = [image.name for image in results.record.images]
    if not name and len(cases) == 1:
        return cases[0]
    if name not in cases:
        raise DataError(f"There is no case '{name}'. Name one with ?case=…; there are {', '.join(cases[:5])}.")
    return name


def _given(files: dict[str, Path], structure: str) -> FileResponse:
    if not files:
        raise DataError("It is not among the results.")
    if len(files) == 1 and not structure:
        path = next(iter(files.values()))
    elif structure in files:
        path = files[structure]
    else:
        raise DataError(f"There is no structure '{structure}'. Name one with ?structure=…: {', '.join(files)}.")
    return FileResponse(path, media_type="application/octet-stream", filename=path.name)
