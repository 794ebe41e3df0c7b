"""``medsegdiff dicom node`` and ``medsegdiff dicom worker``: between a PACS and a model."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medsegdiff.cli import command, options
from medsegdiff.cli.asked import codes_in, parts_of, runs_of
from medsegdiff.cli.console import info, result
from medsegdiff.errors import ConfigError

if TYPE_CHECKING:
    from medsegdiff.server.pacs.delivery import Target
    from medsegdiff.server.pacs.processing import Processing

app = typer.Typer(help="Work with a PACS: series come, are segmented, and results go back.", no_args_is_help=True)

Written = Annotated[
    list[str] | None,
    typer.Option(
        help="What is sent back, with commas between: dicom-seg, dicom-sr, dicom-pm, rtstruct; default: not the last.",
        show_default=False,
    ),
]
Members = Annotated[int | None, typer.Option(min=1, help="Size of the ensemble.", show_default=False)]
Steps = Annotated[int | None, typer.Option(min=1, help="Of the sampler.", show_default=False)]
Seed = Annotated[int, typer.Option(help="The same seed gives the same members.")]
Keep = Annotated[str, typer.Option(help="How long images and results are kept here after their end: 30m, 1d.")]


def folder(default: str) -> Any:
    """Say where series are kept."""
    return typer.Option("--inbox", file_okay=False, help=f"Folder of what came and what was done. [{default}]")


def node(
    model: options.Models,
    send: Annotated[
        list[str], typer.Option(help="Where results go: AE@HOST:PORT; may be repeated.", show_default=False)
    ],
    ae: Annotated[str, typer.Option(help="AE title of this node.")] = "MEDSEGDIFF",
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0: of all networks.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 11112,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            help="AE title that may call, or any; may be repeated. Default: those of --send.", show_default=False
        ),
    ] = None,
    quiet_after: Annotated[
        float, typer.Option(min=0, help="Seconds without a new image after which a series is whole.")
    ] = 15.0,
    write: Written = None,
    inbox: Annotated[Path, folder("medsegdiff-inbox")] = Path("medsegdiff-inbox"),
    keep: Keep = "1d",
    members: Members = None,
    steps: Steps = None,
    seed: Seed = 0,
    dicom_codes: options.DicomCodes = None,
    device: options.Device = None,
) -> None:
    """Be a DICOM node: take series by C-STORE, segment them, and send back segments, a report and maps.

    Example: `medsegdiff dicom node --model runs/liver --send ORTHANC@127.0.0.1:4242`
    """
    from medsegdiff.server.limits import seconds_of
    from medsegdiff.server.pacs.node import Address, run_node
    from medsegdiff.server.pacs.peers import Peer, Sender, check_title

    peers, title, kept = [Peer.of(text) for text in send], check_title(ae), seconds_of(keep)
    named = [check_title(name) for name in allow or []]
    allowed = [] if "any" in named else sorted({*named, *(peer.title for peer in peers)})
    processing = _processing(
        model,
        [Sender(peer, title) for peer in peers],
        write=write,
        codes=dicom_codes,
        device=device,
        asked={"members": members, "steps": steps, "seed": seed},
    )

    def started(port: int) -> None:
        result(f"{title}@{host}:{port}")
        info(f"Callers: {', '.join(allowed) or 'any'}. Results go to {', '.join(map(str, peers))}. Ctrl-C ends it.")

    address = Address(title, host, port, allowed)
    run_node(address, processing, inbox, quiet=quiet_after, keep=kept, started=started, stop=Event())


def worker(
    url: Annotated[str, typer.Argument(help="Root of DICOMweb: http://HOST:PORT/dicom-web.")],
    model: options.Models,
    query: Annotated[
        list[str] | None,
        typer.Option(
            help="Which series: KEYWORD=VALUE of DICOM, such as Modality=CT; may be repeated.", show_default=False
        ),
    ] = None,
    every: Annotated[float, typer.Option(min=1, help="Seconds between two looks.")] = 60.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, do what there is, and end.")] = False,
    token_file: Annotated[
        Path | None, typer.Option(help="File with a token (Bearer) for the archive.", show_default=False)
    ] = None,
    write: Written = None,
    inbox: Annotated[Path, folder("medsegdiff-worker")] = Path("medsegdiff-worker"),
    keep: Keep = "1h",
    members: Members = None,
    steps: Steps = None,
    seed: Seed = 0,
    dicom_codes: options.DicomCodes = None,
    device: options.Device = None,
) -> None:
    """Work for an archive that speaks DICOMweb: search series, segment them, and store the results.

    What was done is remembered in the folder of the inbox: a series is done once.

    Example: `medsegdiff dicom worker http://127.0.0.1:8042/dicom-web --query Modality=CT --model runs/liver`
    """
    from medsegdiff.server.limits import seconds_of
    from medsegdiff.server.pacs.archive import Archive, read_query
    from medsegdiff.server.pacs.watch import watch

    token = "" if token_file is None else token_file.read_text(encoding="utf-8").strip()
    archive, asked, kept = Archive(url, token=token), read_query(query or []), seconds_of(keep)
    processing = _processing(
        model,
        [archive],
        write=write,
        codes=dicom_codes,
        device=device,
        asked={"members": members, "steps": steps, "seed": seed},
    )
    pause = None if once else every
    left = watch(archive, asked, processing, inbox, every=pause, keep=kept, noted=info, stop=Event())
    command.ended(failed=left, done=0)


def _processing(
    model: list[Path],
    targets: list[Target],
    *,
    write: list[str] | None,
    codes: Path | None,
    device: str | None,
    asked: dict[str, Any],
) -> Processing:
    """Load the model."""
    from medsegdiff.inference.segmenter import Segmenter
    from medsegdiff.server.pacs.delivery import SENT
    from medsegdiff.server.pacs.processing import USUAL, Processing
    from medsegdiff.server.silence import silence

    parts = parts_of(write or [], USUAL, tuple(SENT))
    if wrong := [part for part in parts if part not in SENT]:
        raise ConfigError(f"--write is {wrong[0]}; a PACS may get {', '.join(SENT)}.")
    silence()
    segmenter = Segmenter.from_runs(runs_of(model), device=device)
    structures = segmenter.config.spec.labels.structures
    known = None if codes is None else codes_in(codes, structures)
    if missing := [name for name in structures if name not in (known or segmenter.config.data.codes or {})]:
        info(f"DICOM will call {', '.join(missing)} 'tissue': give codes with --dicom-codes, or data.codes.")
    given = {key: value for key, value in asked.items() if value is not None}
    segmenter.request(**given)  # what makes no sense is told now
    return Processing(segmenter, targets, parts=parts, codes=known, options=given, noted=info)


command.add(app, "node", node, long=False)
command.add(app, "worker", worker, long=False)
