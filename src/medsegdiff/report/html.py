"""One self-contained HTML page: text, tables and pictures, no network needed."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from jinja2 import Environment

from medsegdiff.io.atomic import write_text


@dataclass(frozen=True)
class Section:
    """A heading, some words, and what is shown under them."""

    title: str
    text: str = ""
    table: Sequence[Mapping[str, str]] = ()
    """Rows with the same keys, which head the columns."""
    picture: Path | None = None
    """A PNG, taken into the page."""
    code: str = ""
    """Commands to copy."""


def write_report(path: Path, title: str, sections: Sequence[Section]) -> None:
    """Write a page.

    Args:
        path: Ends in ``.html``.
        title: Of the page.
        sections: What it shows, in order.
    """
    template = resources.files("medsegdiff.report").joinpath("report.html").read_text(encoding="utf-8")
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template)
    write_text(path, page.render(title=title, sections=sections, embed=embed))


def embed(picture: Path) -> str:
    """Turn a picture into an address that carries it.

    Args:
        picture: A PNG.

    Returns:
        A data URI.
    """
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
