"""Links from pages to files of the repository: sources become pages with line numbers, and so does other Markdown."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from markdown_it import MarkdownIt
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_for_filename
from sphinx import addnodes
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    "CONTRIBUTING.md": "contributing",
    "CHANGELOG.md": "changelog",
    "THIRD_PARTY.md": "licences",
    "README.md": "index",
}
"""Files of the repository that pages of the site include, or stand for."""
SHOWN = (".py", ".yaml", ".toml", ".md", "")
"""Endings of files that are shown as pages; others are copied."""


def linked(app: Sphinx, tree: nodes.document) -> None:
    """Let links to files lead to the pages that are made of them."""
    name = app.env.docname
    here = Path(app.env.doc2path(name)).parent
    if name in PAGES.values() and name != "index":
        here = ROOT  # an included file, whose links are its own
    for link in list(tree.findall(lambda node: isinstance(node, (addnodes.download_reference, addnodes.pending_xref)))):
        file = _file(link, here)
        if file is None or file.suffix not in SHOWN or (page := _page(file)) is None:
            continue
        if page.startswith("source/"):
            _shown(app)[page] = str(file)
        reference = nodes.reference("", "", *link.children, internal=True)
        reference["refuri"] = app.builder.get_relative_uri(name, page)
        link.replace_self(reference)


def _shown(app: Sphinx) -> dict[str, str]:
    found: dict[str, str] = app.env.__dict__.setdefault("shown_sources", {})
    return found


def _file(link: nodes.Element, here: Path) -> Path | None:
    """Find the file of a link, if it lies in the repository, and not among the pages."""
    target = str(link.get("reftarget", "")).split("#")[0]
    if link.get("refdomain") == "doc":
        target += ".md"
    for base in (here, ROOT / "docs"):
        file = (base / target).resolve()
        inside = file.is_file() and file.is_relative_to(ROOT)
        if inside and not (file.suffix == ".md" and file.is_relative_to(ROOT / "docs")):
            return file
    return None


def _page(file: Path) -> str | None:
    """Name the page of a file."""
    name = file.relative_to(ROOT).as_posix()
    return PAGES.get(name, "source/" + name.replace(".", "-"))


def pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Make the pages, and those that they link to."""
    shown, done = _shown(app), set[str]()
    while waiting := sorted(set(shown) - done):
        for name in waiting:
            done.add(name)
            file = Path(shown[name])
            title = file.relative_to(ROOT).as_posix()
            body = _rendered(app, name, file) if file.suffix == ".md" else _code(file, title)
            yield name, {"title": title, "body": body}, "page.html"


def _code(file: Path, title: str) -> str:
    lexer = get_lexer_for_filename(file.name if file.suffix else f"{file.name}.txt")
    code = highlight(file.read_text(encoding="utf-8"), lexer, HtmlFormatter(linenos="inline"))
    return f"<h1>{title}</h1>{code}"


def _rendered(app: Sphinx, name: str, file: Path) -> str:
    """Render Markdown; pictures are copied, and what it links to gets a page if it can have one."""
    html = MarkdownIt("commonmark").enable("table").render(file.read_text(encoding="utf-8"))

    def moved(found: re.Match[str]) -> str:
        kind, target = found[1], found[2]
        other = (file.parent / target.split("#")[0]).resolve()
        if "://" in target or not other.is_file() or not other.is_relative_to(ROOT):
            return found[0]
        if kind == "src":
            copy = Path(app.outdir) / "_images" / other.name
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(other, copy)
            return f'src="{os.path.relpath(copy, (Path(app.outdir) / name).parent)}"'
        if other.is_relative_to(ROOT / "docs") and other.suffix == ".md":
            page: str | None = other.relative_to(ROOT / "docs").with_suffix("").as_posix()
        else:
            page = _page(other) if other.suffix in SHOWN else None
        if page is None:
            return found[0]
        if page.startswith("source/"):
            _shown(app)[page] = str(other)
        return f'href="{app.builder.get_relative_uri(name, page)}"'

    return re.sub(r'(href|src)="([^"]+)"', moved, html)


def setup(app: Sphinx) -> dict[str, bool]:
    """Take part in a build."""
    app.connect("doctree-read", linked)
    app.connect("html-collect-pages", pages)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
