"""The server as an application: the page, jobs and their results, its own state."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.errors import DataError, MedSegDiffError
from medsegdiff.io.atomic import is_full
from medsegdiff.models.checkpoint import load_config
from medsegdiff.server import job_routes, monailabel, monailabel_store, result_routes
from medsegdiff.server.assets import asset
from medsegdiff.server.datastore import LABELS, Datastore, Sessions
from medsegdiff.server.dispatch import Dispatch, Model
from medsegdiff.server.gate import API, Gate
from medsegdiff.server.pacs.archive import Archive
from medsegdiff.server.problems import Problem, Refusal
from medsegdiff.server.schema import About
from medsegdiff.server.silence import silenced
from medsegdiff.server.tokens import Tokens

SESSIONS = ".sessions"
"""Folder of images that were sent for several questions, beside the jobs."""
NOTICE = (
    "Segments medical images with MedSegDiff-V2 and tells how certain it is. Research software, not a medical device: "
    "a person has to check what it says."
)


def make_app(
    dispatch: Dispatch,
    tokens: Tokens,
    *,
    others: Sequence[str] = (),
    data: Path | None = None,
    archive: Archive | None = None,
) -> Gate:
    """Make the application around a queue.

    Args:
        dispatch: The queue; it is started and stopped with the application.
        tokens: Who may ask.
        others: Origins of pages that may ask too.
        data: Folder of images that viewers choose from; labels that come back are kept in it.
        archive: Where series are that viewers name by their UIDs.

    Returns:
        An ASGI application.
    """

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        with silenced():
            async with dispatch:
                yield

    app = FastAPI(
        title="medsegdiff",
        version=version("medsegdiff"),
        description=NOTICE,
        lifespan=running,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # it would load scripts from elsewhere
        redoc_url=None,
        responses={401: {"model": Problem}, 403: {"model": Problem}},
    )
    app.state.dispatch = dispatch
    _answer_errors(app, dispatch)
    app.include_router(job_routes.router, prefix="/api/v1")
    app.include_router(result_routes.router, prefix="/api/v1/jobs/{job}/results")
    labels = (data or dispatch.jobs.root) / LABELS
    app.state.datastore = store = Datastore(data, labels, like=_of_several_files(dispatch.models))
    app.state.archive = archive
    app.state.sessions = sessions = Sessions(dispatch.jobs.root / SESSIONS, dispatch.limits.keep)
    dispatch.swept += [sessions.sweep, partial(store.sweep, dispatch.limits.keep)]
    app.include_router(monailabel.router)
    app.include_router(monailabel_store.router)
    _tell_state(app, dispatch)
    if others:
        from starlette.middleware.cors import CORSMiddleware

        app.add_middleware(CORSMiddleware, allow_origins=list(others), allow_methods=["*"], allow_headers=["*"])
    _serve_page(app)
    guarded = (API, "/metrics", *monailabel.GUARDED)
    return Gate(app, dispatch, tokens, tuple(others), guarded)


def _of_several_files(models: Sequence[Model]) -> ResolvedConfig | None:
    """Find a model whose cases have a file for each channel, for images of the folder to be put together so."""
    configs = (load_config(Path(run)) for model in models for run in model.runs)
    return next((config for config in configs if config.spec.channel_files > 1), None)


def _answer_errors(app: FastAPI, dispatch: Dispatch) -> None:
    """Answer errors in one form."""

    def told(status: int, words: str, headers: dict[str, str] | None = None) -> JSONResponse:
        return JSONResponse({"error": words}, status, headers)

    @app.exception_handler(Refusal)
    async def refused(_: Request, error: Refusal) -> JSONResponse:
        return told(error.status, error.words, error.headers)

    @app.exception_handler(MedSegDiffError)
    async def ours(_: Request, error: MedSegDiffError) -> JSONResponse:
        return told(404 if isinstance(error, DataError) else 422, dispatch.jobs.without_places(str(error)))

    @app.exception_handler(OSError)
    async def full(_: Request, error: OSError) -> JSONResponse:
        if not is_full(error):
            raise error
        return told(503, "The server's disk is full. Try again later.", {"Retry-After": "600"})

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        lines = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:5]]
        return told(422, "; ".join(lines))

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> JSONResponse:
        words = "There is no such address." if error.status_code == 404 else str(error.detail)
        return told(error.status_code, words, dict(error.headers or {}))


def _tell_state(app: FastAPI, dispatch: Dispatch) -> None:
    measured = dispatch.measured
    measured.follow("waiting", "Jobs that wait", lambda: len(dispatch.jobs.waiting()))
    measured.follow("running", "Jobs that are done now", lambda: sum(job.running for job in dispatch.jobs.all))
    measured.follow("workers", "Workers that are ready", lambda: len(dispatch.ready))

    @app.get("/api/v1/about", tags=["server"])
    async def about() -> About:
        """Tell what answers."""
        return About(version=version("medsegdiff"), mode="serve")

    @app.get("/healthz", tags=["server"])
    async def healthy() -> dict[str, str]:
        """Tell that the server answers."""
        return {"state": "ok"}

    @app.get("/readyz", tags=["server"], responses={503: {"model": Problem}})
    async def ready() -> dict[str, Any]:
        """Tell whether there is a worker with its models loaded."""
        if not dispatch.ready:
            raise Refusal(503, dispatch.error or "Models are being loaded.", retry_after=5.0)
        return {"state": "ready", "workers": len(dispatch.ready)}

    @app.get("/metrics", tags=["server"], response_class=Response)
    async def metrics() -> Response:
        """Give counters in the form of Prometheus."""
        return Response(measured.text(), media_type="text/plain; version=0.0.4")


def _serve_page(app: FastAPI) -> None:
    @app.get("/{name:path}", include_in_schema=False)
    async def page(name: str) -> Response:
        content, kind = asset(name)
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})
