"""Images to choose from and labels that come back, in the interface of MONAI Label."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, File, Form, Request, UploadFile
from fastapi.responses import FileResponse

from medsegdiff.io.hashes import sha256_of
from medsegdiff.server.datastore import FINAL, Datastore
from medsegdiff.server.problems import Problem, Refusal

router = APIRouter(tags=["MONAI Label"], responses={404: {"model": Problem}})
STRATEGIES = {"first": "The first image without a final label", "random": "Any image without a final label"}


def store_of(request: Request) -> Datastore:
    """Find the images, and the labels that the user may see."""
    found: Datastore = request.app.state.datastore
    return found.of(request.state.user)


def ending_of(file: Path) -> str:
    """Give the ending of a file of masks or an image."""
    return ".nii.gz" if file.name.endswith(".nii.gz") else file.suffix


@router.post("/activelearning/{strategy}")
def next_sample(
    request: Request, strategy: str, params: Annotated[dict[str, Any] | None, Body()] = None
) -> dict[str, Any]:
    """Choose an image of the folder ``--data`` that has no final label yet; nothing where all have one."""
    if strategy not in STRATEGIES:
        raise Refusal(422, f"There is no strategy '{strategy}'; there are {', '.join(STRATEGIES)}.")
    store = store_of(request)
    if (name := store.next(strategy)) is None:
        return {}
    file = store.file(name)
    return {"id": name, "name": file.name, "checksum": f"SHA256:{sha256_of(file)}"}


@router.get("/datastore/")
def datastore(request: Request, output: Literal["all", "stats", "train"] | None = None) -> dict[str, Any]:
    """List images and labels, or count them."""
    store = store_of(request)
    if output != "all":
        return store.status()
    objects = {
        name: {
            "image": {"ext": ending_of(case.images[0]), "info": {"name": case.images[0].name}},
            "labels": {tag: {"ext": ending_of(store.label(name, tag)), "info": {}} for tag in store.tags(name)},
        }
        for name, case in store.cases.items()
    }
    return {"name": "medsegdiff", "description": "", "images": {}, "objects": objects}


@router.get("/datastore/image", response_class=FileResponse)
@router.head("/datastore/image", include_in_schema=False)
def image(request: Request, image: str) -> FileResponse:
    """Give an image of the folder ``--data``."""
    file = store_of(request).file(image)
    return FileResponse(file, media_type="application/octet-stream", filename=file.name)


@router.get("/datastore/label", response_class=FileResponse)
def label(request: Request, label: str, tag: str = FINAL) -> FileResponse:
    """Give a label that came back."""
    file = store_of(request).label(label, tag)
    return FileResponse(file, media_type="application/octet-stream", filename=file.name)


@router.put("/datastore/label")
async def keep_label(
    request: Request,
    image: str,
    label: Annotated[UploadFile, File()],
    tag: str = FINAL,
    params: Annotated[str, Form()] = "{}",
) -> dict[str, str]:
    """Take a label that somebody has corrected."""
    keep = partial(store_of(request).keep, given=label.filename or "label.nii.gz")
    await asyncio.to_thread(keep, image, tag, label.file)
    return {"image": image, "label": image}
