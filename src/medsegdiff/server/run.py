"""Running the server: models are looked at, the folder of jobs is taken, requests are answered until it is stopped."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

import uvicorn
from filelock import FileLock, Timeout

from medsegdiff.errors import ConfigError
from medsegdiff.models.checkpoint import load_config
from medsegdiff.models.packed import called
from medsegdiff.server.app import make_app
from medsegdiff.server.dispatch import Dispatch, Model
from medsegdiff.server.gate import Gate
from medsegdiff.server.jobs import JobFolder
from medsegdiff.server.limits import Limits
from medsegdiff.server.pacs.archive import Archive
from medsegdiff.server.tokens import Tokens

LOCK = ".lock"


def run_server(
    runs: Sequence[Sequence[Path]],
    *,
    host: str,
    port: int,
    tokens: Tokens,
    jobs: Path,
    limits: Limits,
    device: str | None = None,
    others: Sequence[str] = (),
    data: Path | None = None,
    archive: Archive | None = None,
    started: Callable[[str], None],
) -> None:
    """Serve until somebody stops it."""
    models = models_of(runs)
    jobs.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(jobs / LOCK, timeout=0):
            dispatch = Dispatch(JobFolder(jobs.resolve()), models, devices_of(device), limits)
            app = make_app(dispatch, tokens, others=others, data=data, archive=archive)
            asyncio.run(_serve(app, host=host, port=port, started=started))
    except Timeout as error:
        raise ConfigError(f"Another server works in {jobs}. Choose another folder: --jobs FOLDER.") from error


def models_of(runs: Sequence[Sequence[Path]]) -> list[Model]:
    """Name models after their folders, those of the hub as they were packed if that tells them apart."""
    for run in chain(*runs):
        load_config(run)
    packed = ["+".join(map(called, together)) for together in runs]
    folders = ["+".join(run.resolve().name for run in together) for together in runs]
    pairs = zip(packed, folders, strict=True)
    names = [name if packed.count(name) == 1 else folder for name, folder in pairs]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"Two runs are called {min(twice)}; jobs could not tell them apart. Rename a folder.")
    paths = (tuple(str(run.resolve()) for run in together) for together in runs)
    return [Model(name, own) for name, own in zip(names, paths, strict=True)]


def devices_of(asked: str | None) -> list[str]:
    """List devices, each of which gets a worker: all GPUs, unless one is asked for."""
    if asked is not None:
        return asked.split(",")
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or [""]


async def _serve(app: Gate, *, host: str, port: int, started: Callable[[str], None]) -> None:
    settings = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,  # addresses hold names of cases
        server_header=False,
        timeout_keep_alive=20,
        timeout_graceful_shutdown=3,
        lifespan="on",
    )
    with _bound(host, port) as listening:
        address = listening.getsockname()
        shown = f"[{address[0]}]" if ":" in address[0] else address[0]
        started(f"http://{shown}:{address[1]}/")
        await uvicorn.Server(settings).serve(sockets=[listening])


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host.strip("[]"), port))
    except OSError as error:
        listening.close()
        raise ConfigError(f"{host}:{port} can't be used ({error.strerror}). Choose another --port.") from error
    return listening
