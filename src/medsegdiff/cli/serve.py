"""``medsegdiff serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medsegdiff.cli import options
from medsegdiff.cli.asked import runs_of
from medsegdiff.cli.console import info, result
from medsegdiff.errors import ConfigError


def serve(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Folders of runs, names of models; with commas between, they segment together."),
    ],
    host: Annotated[str, typer.Option(help="Address to be reached at; others than this machine need tokens.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(help="A line by user: TOKEN, or NAME TOKEN. Each sees own jobs alone.", show_default=False),
    ] = None,
    jobs: Annotated[Path, typer.Option(file_okay=False, help="Folder in which jobs are kept.")] = Path(
        "medsegdiff-jobs"
    ),
    max_upload: Annotated[str, typer.Option(help="Largest request, also unpacked: 500MB, 1GB.")] = "1GB",
    max_voxels: Annotated[int, typer.Option(min=1, help="Of an image.")] = 300_000_000,
    queue: Annotated[int, typer.Option(min=1, help="Jobs that may wait.")] = 32,
    keep: Annotated[str, typer.Option(help="How long jobs are kept after their end: 30m, 1h, 7d.")] = "1h",
    data: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Images that viewers with MONAI Label's plug-ins choose from; their labels are kept in it.",
            show_default=False,
        ),
    ] = None,
    dicomweb: Annotated[
        str | None,
        typer.Option(
            help="Archive whose series OHIF names: http://HOST:PORT/dicom-web, user and password before HOST.",
            show_default=False,
        ),
    ] = None,
    device: options.Device = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(help="Origin of pages that may ask too, such as that of a viewer.", show_default=False),
    ] = None,
) -> None:
    """Serve a page and an API: drop images, look at masks, members and uncertainty.

    Example: `medsegdiff serve runs/isic --port 8000`
    """
    from medsegdiff.server.limits import Limits, bytes_of, seconds_of
    from medsegdiff.server.tokens import Tokens, check_host

    try:
        from medsegdiff.server.run import run_server
    except ImportError as error:
        raise ConfigError(
            f"'medsegdiff serve' needs packages that are not installed ({error}). "
            "Install them: pip install 'medsegdiff[serve]'"
        ) from error

    tokens = Tokens() if token_file is None else Tokens.read(token_file)
    check_host(host, tokens)
    limits = Limits(upload=bytes_of(max_upload), voxels=max_voxels, queue=queue, keep=seconds_of(keep))

    archive = None
    if dicomweb is not None:
        from medsegdiff.server.pacs.archive import Archive

        archive = Archive(dicomweb)

    def started(address: str) -> None:
        result(address)
        info("Research software, not a medical device. Ctrl-C ends it; jobs go on with the next start.")

    run_server(
        [runs_of([run]) for run in runs],
        host=host,
        port=port,
        tokens=tokens,
        jobs=jobs,
        limits=limits,
        device=device,
        others=allow_origin or [],
        data=data,
        archive=archive,
        started=started,
    )
