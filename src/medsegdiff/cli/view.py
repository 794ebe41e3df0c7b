"""``medsegdiff view``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medsegdiff.cli.console import info, result, warn


def view(
    results: Annotated[Path, typer.Argument(help="Folder that 'medsegdiff segment --out' has made.")],
    images: Annotated[
        list[Path] | None,
        typer.Option(
            "--images",
            "-i",
            help="Where the images are, if they have moved: files, series, folders of them; may be repeated.",
            show_default=False,
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: one that is free.")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Whether to open a browser.")] = True,
) -> None:
    """Look at results in a browser: members, uncertainty, thresholds, quality; correct masks. No model is needed.

    Example: `medsegdiff view masks`
    """
    import webbrowser

    from medsegdiff.inference.inputs import find_inputs
    from medsegdiff.server.local import LocalServer
    from medsegdiff.server.results import Results

    found = {case.name: case for case in find_inputs(images, noted=warn)} if images else {}
    shown = Results(results, found)
    if found and not any(image.name in found for image in shown.record.images):
        warn(f"None of the images is among the cases of {results}.")
    with LocalServer(shown, port=port) as server:
        result(server.address)
        info("This machine alone can see the page. Ctrl-C ends it.")
        if browser:
            webbrowser.open(server.address)
        server.serve_forever()
